// Times docker-modem's demuxStream over a wire file: main.js WIRE REPEATS. Prints one JSON object.
'use strict';

const EventEmitter = require('events');
const fs = require('fs');
const Modem = require('docker-modem');

const PIECE = 64 * 1024; // what a read of a socket gives in Node

// Keeps what it is given in memory that is there already.
class Sink {
  constructor(size) {
    this.data = Buffer.alloc(size);
    this.size = 0;
  }

  write(chunk) {
    this.size += chunk.copy(this.data, this.size);
  }
}

function crc32(data) {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

const wire = fs.readFileSync(process.argv[2]);
const repeats = Number(process.argv[3]);
const stdout = new Sink(wire.length);
const stderr = new Sink(wire.length);
const modem = new Modem();
const seconds = [];
for (let i = 0; i <= repeats; i++) { // the first warms up
  stdout.size = stderr.size = 0;
  const source = new EventEmitter();
  modem.demuxStream(source, stdout, stderr);
  const start = process.hrtime.bigint();
  for (let at = 0; at < wire.length; at += PIECE) source.emit('data', wire.subarray(at, at + PIECE));
  const took = process.hrtime.bigint() - start;
  if (i > 0) seconds.push(Number(took) / 1e9);
}
const version = require('docker-modem/package.json').version;
console.log(JSON.stringify({
  package: `docker-modem ${version}`,
  runtime: `node ${process.version}`,
  stdout: [stdout.size, crc32(stdout.data.subarray(0, stdout.size))],
  stderr: [stderr.size, crc32(stderr.data.subarray(0, stderr.size))],
  seconds,
}));
