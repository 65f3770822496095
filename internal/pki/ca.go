package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// caLife is how long the CA certificate is valid.
	caLife = 10 * 365 * 24 * time.Hour
	// serverLife is how long a server certificate is valid; the server makes
	// itself a new one at two thirds of it.
	serverLife = 7 * 24 * time.Hour
	// DefaultClientLife is how long certificates of agents and operators are
	// valid.
	DefaultClientLife = 7 * 24 * time.Hour
	// backdate allows for clocks that differ.
	backdate = 5 * time.Minute
	// maxCSR bounds a certificate request, in bytes.
	maxCSR = 16 << 10
	// caFile holds the CA's certificate and key, PEM.
	caFile = "ca.pem"
)

// CA is the server's certificate authority. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	life time.Duration
	now  func() time.Time
}

// OpenCA loads the CA from dir, or makes one there when there is none. The
// file holds the private key and is readable by its owner alone. Client
// certificates are valid for clientLife (DefaultClientLife when 0).
func OpenCA(dir string, clientLife time.Duration) (*CA, error) {
	if clientLife <= 0 {
		clientLife = DefaultClientLife
	}
	path := filepath.Join(dir, caFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = createCA(path); err != nil {
			return nil, fmt.Errorf("create certificate authority: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	cert, key, err := parseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority %s: %w", path, err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("open certificate authority %s: its certificate is not a CA's", path)
	}
	return &CA{cert: cert, key: key, life: clientLife, now: time.Now}, nil
}

func createCA(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Confine CA", Organization: []string{"Confine"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	data, err := encodeIdentity(der, key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return data, writeFile(path, data, 0o600)
}

// Certificate returns the CA certificate, DER.
func (c *CA) Certificate() []byte { return c.cert.Raw }

// Pin returns the SHA-256 of the CA certificate, which join tokens carry.
func (c *CA) Pin() [sha256.Size]byte { return sha256.Sum256(c.cert.Raw) }

// Pool returns a pool that holds the CA alone.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// Sign makes a client certificate for the key of a certificate request. Only
// the request's public key is used: what it says about itself is ignored.
func (c *CA) Sign(csr []byte, id Identity) ([]byte, error) {
	if err := CheckName(id.Name); err != nil {
		return nil, err
	}
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("read certificate request: %d bytes are more than the limit of %d", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	switch key := req.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return nil, errors.New("check certificate request: use a P-256, P-384 or Ed25519 key")
		}
	default:
		return nil, errors.New("check certificate request: use a P-256, P-384 or Ed25519 key")
	}
	return c.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: id.Name, OrganizationalUnit: []string{string(id.Role)}},
		NotAfter:    c.now().Add(c.life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, req.PublicKey)
}

func (c *CA) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = c.now().Add(-backdate)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, public, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

// ServerTLS returns the configuration of the server's listener. Its
// certificate names the given hosts (names or addresses) and is made anew in
// time. A client may come without a certificate, because that is how it
// enrols: who may call what is the business of the API's role check.
func (c *CA) ServerTLS(hosts []string) (*tls.Config, error) {
	if len(hosts) == 0 {
		return nil, errors.New("make server certificate: name at least one host (--san) that clients will dial")
	}
	s := &serverCertificate{ca: c, hosts: hosts}
	if _, err := s.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      c.Pool(),
		GetCertificate: s.get,
		// A resumed session would go on after its certificate ended.
		SessionTicketsDisabled: true,
	}, nil
}

// serverCertificate holds the current certificate of a listener.
type serverCertificate struct {
	ca    *CA
	hosts []string

	mu   sync.Mutex
	cert *tls.Certificate
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && s.ca.now().Before(renewAt(s.cert.Leaf)) {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "confine-server"},
		NotAfter:    s.ca.now().Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range s.hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := s.ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read server certificate: %w", err)
	}
	// The CA goes along so that a joining client can compare it with its pin.
	s.cert = &tls.Certificate{Certificate: [][]byte{der, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return s.cert, nil
}

// renewAt is the time at which two thirds of a certificate's life are over.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// encodeIdentity writes certificate and key as one PEM file, so that both
// change in one rename.
func encodeIdentity(der []byte, key crypto.Signer) ([]byte, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}

func parseIdentity(data []byte) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("key cannot sign")
	}
	return pair.Leaf, key, nil
}
