//! Times bollard's log decoder over a wire file: main WIRE REPEATS. Prints one JSON object.
use std::time::Instant;

use bytes::BytesMut;
use tokio_util::codec::Decoder;

// Where the decoder's file looks for its neighbours.
mod container {
    pub use bollard::container::LogOutput;
}
mod errors {
    pub use bollard::errors::Error;
}
include!(concat!(env!("OUT_DIR"), "/read_module.rs"));

use container::LogOutput;

const PIECE: usize = 64 * 1024; // what a read of a socket gives

fn crc32(data: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (i, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(i as u32, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 });
    }
    !data.iter().fold(!0u32, |crc, byte| (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

fn demux(wire: &[u8], stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let mut decoder = read::NewlineLogOutputDecoder::new(true);
    let mut buffer = BytesMut::with_capacity(2 * PIECE);
    for piece in wire.chunks(PIECE) {
        buffer.extend_from_slice(piece);
        while let Some(output) = decoder.decode(&mut buffer).expect("a valid wire") {
            match output {
                LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                other => stdout.extend_from_slice(&other.into_bytes()),
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let wire = std::fs::read(&arguments[1]).expect("the wire cannot be read");
    let repeats: usize = arguments[2].parse().expect("REPEATS is not a number");
    let (mut stdout, mut stderr) = (Vec::with_capacity(wire.len()), Vec::with_capacity(wire.len()));
    let mut seconds = Vec::new();
    for i in 0..=repeats {
        // the first warms up
        stdout.clear();
        stderr.clear();
        let start = Instant::now();
        demux(&wire, &mut stdout, &mut stderr);
        let took = start.elapsed().as_secs_f64();
        if i > 0 {
            seconds.push(took.to_string());
        }
    }
    println!(
        "{{\"package\": \"bollard {}\", \"runtime\": \"rust\", \"stdout\": [{}, {}], \"stderr\": [{}, {}], \"seconds\": [{}]}}",
        option_env!("BOLLARD_VERSION").unwrap_or("?"),
        stdout.len(),
        crc32(&stdout),
        stderr.len(),
        crc32(&stderr),
        seconds.join(", ")
    );
}
