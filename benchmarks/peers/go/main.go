// Times Moby's StdCopy over a wire file: main WIRE REPEATS. Prints one JSON object.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
)

const module = "github.com/moby/moby/api"

// sink keeps what it is given in memory that is there already.
type sink struct{ data []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.data = append(s.data, p...)
	return len(p), nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s WIRE REPEATS", os.Args[0]))
	}
	wire, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	repeats, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fail(err)
	}
	stdout := sink{make([]byte, 0, len(wire))}
	stderr := sink{make([]byte, 0, len(wire))}
	seconds := []float64{}
	for i := 0; i <= repeats; i++ { // the first warms up
		stdout.data, stderr.data = stdout.data[:0], stderr.data[:0]
		source := bytes.NewReader(wire)
		start := time.Now()
		_, err := stdcopy.StdCopy(&stdout, &stderr, source)
		took := time.Since(start)
		if err != nil {
			fail(err)
		}
		if i > 0 {
			seconds = append(seconds, took.Seconds())
		}
	}
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				version = dep.Version
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"package": module + " " + version,
		"runtime": runtime.Version(),
		"stdout":  []int{len(stdout.data), int(crc32.ChecksumIEEE(stdout.data))},
		"stderr":  []int{len(stderr.data), int(crc32.ChecksumIEEE(stderr.data))},
		"seconds": seconds,
	})
}
