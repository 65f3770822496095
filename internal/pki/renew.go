package pki

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// renewRetry is the pause after a renewal that did not succeed.
	renewRetry = time.Minute
	// renewLongest bounds a sleep, because timers stand still while a machine
	// is suspended.
	renewLongest = 10 * time.Minute
)

// Renew asks the server for a new certificate, with a new key, if two thirds
// of the current one's life are over; otherwise it does nothing. Short-lived
// commands call it once; daemons use KeepRenewed.
func Renew(ctx context.Context, dir string, conn grpc.ClientConnInterface) error {
	c, err := ReadClient(dir)
	if err != nil {
		return err
	}
	if time.Now().Before(c.RenewAt) {
		return nil
	}
	return renew(ctx, dir, conn)
}

func renew(ctx context.Context, dir string, conn grpc.ClientConnInterface) error {
	key, csr, err := newRequest()
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	resp, err := confinev1.NewAgentServiceClient(conn).Renew(ctx, &confinev1.RenewRequest{Csr: csr})
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	return keepIdentity(dir, resp.GetCertificate(), key)
}

// KeepRenewed renews the certificate in dir in time until ctx ends. An attempt
// that does not succeed is told to report (which may be nil) and repeated.
func KeepRenewed(ctx context.Context, dir string, conn grpc.ClientConnInterface, report func(error)) {
	for {
		pause := renewLongest
		if err := Renew(ctx, dir, conn); err != nil {
			if report != nil && ctx.Err() == nil {
				report(err)
			}
			pause = renewRetry
		} else if c, err := ReadClient(dir); err == nil {
			pause = min(pause, max(time.Until(c.RenewAt), time.Second))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
