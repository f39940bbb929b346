module muxframe.benchmarks/stdcopy

go 1.24

require github.com/moby/moby/api v1.56.1
