package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Files of a client's folder.
const (
	identityFile = "identity.pem" // certificate and key, owner only
	trustFile    = "ca.pem"       // the server's CA
	serverFile   = "server"       // address to dial
)

// Enroll exchanges a join token for a certificate at the server that listens
// on addr, and keeps certificate, key, CA and address in dir. The server is
// trusted only if its CA is the one that the token names.
func Enroll(ctx context.Context, addr, token, name, dir string) error {
	t, err := ParseToken(token)
	if err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("join %s: give the server as HOST:PORT: %w", addr, err)
	}
	key, csr, err := newRequest()
	if err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(pinnedTLS(host, t.Pin))))
	if err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	defer conn.Close()
	resp, err := confinev1.NewEnrollServiceClient(conn).Enroll(ctx, &confinev1.EnrollRequest{
		Token: token, Name: name, Csr: csr,
	})
	if err != nil {
		return fmt.Errorf("join %s: %w", addr, err)
	}
	if sha256.Sum256(resp.GetCa()) != t.Pin {
		return fmt.Errorf("join %s: the server answered with a CA that the token does not name", addr)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	if err := keepTrust(dir, resp.GetCa()); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, serverFile), []byte(addr+"\n"), 0o644); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	return keepIdentity(dir, resp.GetCertificate(), key)
}

// pinnedTLS trusts a server that shows the CA with this digest and a
// certificate that this CA signed for host.
func pinnedTLS(host string, pin [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The usual check has no root to start from; VerifyConnection does
		// the whole of it with the pinned CA as root.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, cert := range state.PeerCertificates[1:] {
				if sha256.Sum256(cert.Raw) != pin {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(cert)
				_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
					Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				var hostname x509.HostnameError
				if errors.As(err, &hostname) {
					return fmt.Errorf("%w: start the server with --san %s", err, host)
				}
				return err
			}
			return errors.New("the server is not the one that made the join token: check its address")
		},
	}
}

func newRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

func keepTrust(dir string, ca []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})
	if err := writeFile(filepath.Join(dir, trustFile), data, 0o644); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	return nil
}

func keepIdentity(dir string, der []byte, key *ecdsa.PrivateKey) error {
	data, err := encodeIdentity(der, key)
	if err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	if _, _, err := parseIdentity(data); err != nil {
		return fmt.Errorf("keep identity: the server's certificate is not for our key: %w", err)
	}
	if err := writeFile(filepath.Join(dir, identityFile), data, 0o600); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	return nil
}

// Client is what a folder that Enroll filled says.
type Client struct {
	Identity
	// Server is the address that was enrolled at, HOST:PORT.
	Server string
	// Expires is the end of the current certificate; RenewAt is when it
	// should be renewed.
	Expires, RenewAt time.Time
}

// ReadClient reads a client's folder.
func ReadClient(dir string) (Client, error) {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return Client{}, fmt.Errorf("read identity: %w: join the server first (with a token from `confinectl token create`)", err)
	} else if err != nil {
		return Client{}, fmt.Errorf("read identity: %w", err)
	}
	cert, _, err := parseIdentity(data)
	if err != nil {
		return Client{}, fmt.Errorf("read identity in %s: %w", dir, err)
	}
	id, err := FromCertificate(cert)
	if err != nil {
		return Client{}, fmt.Errorf("read identity in %s: %w", dir, err)
	}
	addr, err := os.ReadFile(filepath.Join(dir, serverFile))
	if err != nil {
		return Client{}, fmt.Errorf("read identity: %w", err)
	}
	return Client{
		Identity: id, Server: strings.TrimSpace(string(addr)),
		Expires: cert.NotAfter, RenewAt: renewAt(cert),
	}, nil
}

// ClientTLS returns the configuration to dial the server with. The
// certificate is read again for every handshake that follows a renewal, so
// that connections made later use the new one. Renew and KeepRenewed renew.
func ClientTLS(dir string) (*tls.Config, error) {
	c, err := ReadClient(dir)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(c.Expires) {
		return nil, fmt.Errorf("certificate of %s ended on %s: join again with a new token", c.Name, c.Expires.Format(time.RFC3339))
	}
	ca, err := os.ReadFile(filepath.Join(dir, trustFile))
	if err != nil {
		return nil, fmt.Errorf("read server's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read server's CA in %s: no certificate", dir)
	}
	host, _, err := net.SplitHostPort(c.Server)
	if err != nil {
		return nil, fmt.Errorf("read server's address %q: %w", c.Server, err)
	}
	own := &clientCertificate{path: filepath.Join(dir, identityFile)}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		ServerName:           host,
		RootCAs:              roots,
		GetClientCertificate: own.get,
	}, nil
}

// clientCertificate reloads a certificate when its file changes.
type clientCertificate struct {
	path string

	mu       sync.Mutex
	modified time.Time
	cert     *tls.Certificate
}

func (c *clientCertificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if c.cert != nil && info.ModTime().Equal(c.modified) {
		return c.cert, nil
	}
	cert, err := tls.LoadX509KeyPair(c.path, c.path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	c.cert, c.modified = &cert, info.ModTime()
	return c.cert, nil
}
