// A TLS server as engines have one: reads to the end that the client declares, and only then answers.
//
//	go run server.go CERT KEY 1.2|1.3 SIZE
//
// Prints its port. Answers one connection with what it read and SIZE zeros behind it, and declares the end.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	version := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[os.Args[3]]
	listener := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{must(tls.LoadX509KeyPair(os.Args[1], os.Args[2]))},
		MinVersion:   version,
		MaxVersion:   version,
	}))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn := must(listener.Accept())
	request := must(io.ReadAll(conn)) // fails where the end is not declared
	must(conn.Write(request))
	must(conn.Write(make([]byte, must(strconv.Atoi(os.Args[4])))))
	if err := conn.Close(); err != nil {
		log.Fatal(err)
	}
}
