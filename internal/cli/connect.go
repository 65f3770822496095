package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/confinehq/confine/internal/pki"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxMessage bounds a message of the server, in bytes: a result has all of a
// run's objects and reasons.
const maxMessage = 64 << 20

// connect opens a connection to the server that flags and configuration name.
// Whether anybody answers shows at the first call.
func (a *app) connect() (*grpc.ClientConn, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	var creds credentials.TransportCredentials
	if t.unix() {
		// Only the local user can reach the socket: its permissions decide.
		creds = insecure.NewCredentials()
	} else if creds, err = clientTLS(t); err != nil {
		return nil, err
	}
	return grpc.NewClient(t.address, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
}

// withServer calls f with a client of the server, and renews the certificate
// when its time has come.
func (a *app) withServer(ctx context.Context, f func(confinev1.OperatorServiceClient) error) error {
	conn, err := a.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := f(confinev1.NewOperatorServiceClient(conn)); err != nil {
		return err
	}
	if t, err := a.target(); err == nil && !t.unix() {
		// The answer is there already; a renewal that fails is tried again
		// by the next command.
		_ = pki.Renew(ctx, t.certDir, conn)
	}
	return nil
}

// operator returns a client of the server, or of one that runs in this
// process. Closing ends the latter.
func (a *app) operator(ctx context.Context, standalone bool, o StandaloneOptions) (confinev1.OperatorServiceClient, io.Closer, error) {
	if !standalone {
		conn, err := a.connect()
		if err != nil {
			return nil, nil, err
		}
		return confinev1.NewOperatorServiceClient(conn), conn, nil
	}
	conn, closer, err := a.Standalone(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return confinev1.NewOperatorServiceClient(conn), closer, nil
}

// clientTLS is the identity that 'confinectl login' keeps.
func clientTLS(t target) (credentials.TransportCredentials, error) {
	config, err := pki.ClientTLS(t.certDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reach %s: this user has no certificate in %s: run 'confinectl login --server %s --token TOKEN' with a token that 'confinectl token create --role operator' makes on the server",
			t.address, t.certDir, t.address)
	}
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", t.address, err)
	}
	return credentials.NewTLS(config), nil
}
