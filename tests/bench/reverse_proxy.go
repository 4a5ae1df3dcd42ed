// The reverse proxy of Go's standard library, as Go gateways use it.
// Arguments: the address to listen on, and network ("unix" or "tcp") and address of the upstream.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	network, address := os.Args[2], os.Args[3]
	target := &url.URL{Scheme: "http", Host: "llama"}
	var dialer net.Dialer
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // each piece at once
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			},
			MaxIdleConns:        2048,
			MaxIdleConnsPerHost: 2048,
			DisableCompression:  true,
		},
	}
	log.Fatal(http.ListenAndServe(os.Args[1], proxy))
}
