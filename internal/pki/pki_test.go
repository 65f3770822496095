package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func openCA(t *testing.T, dir string) *CA {
	t.Helper()
	ca, err := OpenCA(dir, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCAStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, second := openCA(t, dir), openCA(t, dir)
	if !bytes.Equal(first.Certificate(), second.Certificate()) || first.Pin() != second.Pin() {
		t.Error("opened again, the CA is another")
	}
	for _, name := range []string{dir, filepath.Join(dir, caFile)} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v; only its owner may read it", name, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, caFile), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir, 0); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a broken file: %v, want an error that names it", err)
	}
	// A key that isn't a CA's must not sign.
	ca := openCA(t, t.TempDir())
	der, key := signed(t, ca, Identity{"n1", RoleAgent})
	data, err := encodeIdentity(der, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, caFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir, 0); err == nil {
		t.Error("a client's certificate was taken for a CA")
	}
}

func signed(t *testing.T, ca *CA, id Identity) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, csr, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func TestSign(t *testing.T) {
	ca := openCA(t, t.TempDir())
	der, _ := signed(t, ca, Identity{"n1", RoleAgent})
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	id, err := FromCertificate(cert)
	if err != nil || id != (Identity{"n1", RoleAgent}) {
		t.Errorf("identity %+v, %v", id, err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("as a client: %v", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate serves as a server's")
	}
	if cert.IsCA || time.Until(cert.NotAfter) > time.Hour {
		t.Errorf("CA %v, until %v", cert.IsCA, cert.NotAfter)
	}
}

// TestSignIgnoresTheRequest asks for another name and role than is granted.
func TestSignIgnoresTheRequest(t *testing.T) {
	ca := openCA(t, t.TempDir())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{DNSNames: []string{"evil"}}
	template.Subject.CommonName, template.Subject.OrganizationalUnit = "root", []string{"operator"}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Sign(csr, Identity{"n1", RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := FromCertificate(cert); err != nil || id != (Identity{"n1", RoleReader}) || len(cert.DNSNames) > 0 {
		t.Errorf("granted %+v, names %q, %v", id, cert.DNSNames, err)
	}
}

func TestSignRefuses(t *testing.T) {
	ca := openCA(t, t.TempDir())
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weakCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	_, good, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		csr []byte
		id  Identity
	}{
		"nothing": {nil, Identity{"n1", RoleAgent}}, "garbage": {[]byte("csr"), Identity{"n1", RoleAgent}},
		"huge": {make([]byte, maxCSR+1), Identity{"n1", RoleAgent}}, "RSA key": {weakCSR, Identity{"n1", RoleAgent}},
		"forged": {forged, Identity{"n1", RoleAgent}}, "bad name": {good, Identity{"../n1", RoleAgent}},
	} {
		if _, err := ca.Sign(c.csr, c.id); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestTokens(t *testing.T) {
	ca := openCA(t, t.TempDir())
	token, err := NewToken(ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseToken(" " + token.String() + "\n")
	if err != nil || back != token || back.Hash() != token.Hash() {
		t.Errorf("%v, %v", back, err)
	}
	other, err := NewToken(ca.Pin())
	if err != nil || other.Hash() == token.Hash() {
		t.Errorf("two tokens are the same, %v", err)
	}
	if strings.Contains(token.String(), token.Hash()) {
		t.Error("the hash is in the token's text")
	}
	text := token.String()
	for _, bad := range []string{"", text[:len(text)-1], text + "A", "confine2" + text[8:], strings.Replace(text, ".", "..", 1), "confine1..", strings.ToLower(text) + "!"} {
		if got, err := ParseToken(bad); err == nil {
			t.Errorf("ParseToken(%q) = %v", bad, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("confine1.AAAA.BBBB")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != strings.TrimSpace(text) {
			t.Errorf("%q is read as %q", text, token)
		}
	})
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"n1": true, "node-1.example_x": true, "a": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "a b": false, "..": false, strings.Repeat("a", 64): false, "ä": false, "a\n": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
}

// shake connects a client with a server configuration over memory.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	served := make(chan error, 1)
	s := tls.Server(a, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		if err != nil {
			a.Close()
		}
		served <- err
	}()
	c := tls.Client(b, client)
	err := c.Handshake()
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1)) // TLS 1.3 tells a refusal late
	}
	if err != nil {
		b.Close()
	}
	if serverErr := <-served; err == nil {
		err = serverErr
	}
	return err
}

func TestServerTLS(t *testing.T) {
	ca, foreign := openCA(t, t.TempDir()), openCA(t, t.TempDir())
	server, err := ca.ServerTLS([]string{"server.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.ServerTLS(nil); err == nil {
		t.Error("a certificate without any host")
	}
	client := func(ca *CA, host string) *tls.Config {
		der, key := signed(t, ca, Identity{"n1", RoleAgent})
		return &tls.Config{ServerName: host, RootCAs: ca.Pool(), Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
	if err := shake(t, server, client(ca, "server.example")); err != nil {
		t.Errorf("by name: %v", err)
	}
	if err := shake(t, server, client(ca, "127.0.0.1")); err != nil {
		t.Errorf("by address: %v", err)
	}
	if err := shake(t, server, client(ca, "other.example")); err == nil {
		t.Error("under another name: trusted")
	}
	stranger := client(foreign, "server.example")
	stranger.RootCAs = ca.Pool()
	if err := shake(t, server, stranger); err == nil {
		t.Error("a certificate of another CA was let in")
	}
	old := client(ca, "server.example")
	old.MaxVersion = tls.VersionTLS12
	if err := shake(t, server, old); err == nil {
		t.Error("TLS 1.2 was let in")
	}
	// Pinning.
	if err := shake(t, server, pinnedTLS("server.example", ca.Pin())); err != nil {
		t.Errorf("pinned: %v", err)
	}
	if err := shake(t, server, pinnedTLS("server.example", foreign.Pin())); err == nil {
		t.Error("pinned to another CA: trusted")
	}
	if err := shake(t, server, pinnedTLS("other.example", ca.Pin())); err == nil || !strings.Contains(err.Error(), "--san other.example") {
		t.Errorf("pinned under another name: %v, want one that says --san", err)
	}
}

// TestServerCertificateRenewsItself lets time pass.
func TestServerCertificateRenewsItself(t *testing.T) {
	ca := openCA(t, t.TempDir())
	now := time.Now()
	ca.now = func() time.Time { return now }
	config, err := ca.ServerTLS([]string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	get := func() *x509.Certificate {
		c, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := get()
	now = now.Add(serverLife / 2)
	if !get().Equal(first) {
		t.Error("renewed at half of its life")
	}
	now = now.Add(serverLife / 4)
	if second := get(); second.Equal(first) || !second.NotAfter.After(first.NotAfter) {
		t.Error("not renewed at three quarters of its life")
	}
}

// renewer is a server that renews for one CA.
type renewer struct {
	grpc.ClientConnInterface
	ca    *CA
	asked int
	lie   bool
}

func (r *renewer) Invoke(_ context.Context, _ string, req, resp any, _ ...grpc.CallOption) error {
	r.asked++
	csr := req.(*confinev1.RenewRequest).GetCsr()
	if r.lie {
		var err error
		if _, csr, err = newRequest(); err != nil {
			return err
		}
	}
	der, err := r.ca.Sign(csr, Identity{"n1", RoleAgent})
	resp.(*confinev1.RenewResponse).Certificate = der
	return err
}

// keep fills a client's folder.
func keep(t *testing.T, ca *CA, dir string) {
	t.Helper()
	der, key := signed(t, ca, Identity{"n1", RoleAgent})
	for _, err := range []error{
		keepTrust(dir, ca.Certificate()), writeFile(filepath.Join(dir, serverFile), []byte("h:1\n"), 0o644), keepIdentity(dir, der, key),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRenew(t *testing.T) {
	ca, dir := openCA(t, t.TempDir()), t.TempDir()
	keep(t, ca, dir)
	config, err := ClientTLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() []byte {
		c, err := config.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificate[0]
	}
	first := shown()
	r := &renewer{ca: ca}
	if err := Renew(t.Context(), dir, r); err != nil || r.asked != 0 {
		t.Errorf("renewed before its time: %v, asked %d times", err, r.asked)
	}
	// Certificates that are nearly over.
	ca.now = func() time.Time { return time.Now().Add(-50 * time.Minute) }
	keep(t, ca, dir)
	ca.now = time.Now
	r.lie = true
	before, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := Renew(t.Context(), dir, r); err == nil {
		t.Error("a certificate for another key was kept")
	}
	if after, err := os.ReadFile(filepath.Join(dir, identityFile)); err != nil || !bytes.Equal(before, after) {
		t.Error("a renewal that went wrong changed the identity")
	}
	r.lie = false
	if err := Renew(t.Context(), dir, r); err != nil {
		t.Fatal(err)
	}
	c, err := ReadClient(dir)
	if err != nil || time.Until(c.Expires) < 30*time.Minute || c.Server != "h:1" {
		t.Errorf("after a renewal: %+v, %v", c, err)
	}
	if bytes.Equal(shown(), first) {
		t.Error("connections go on with the old certificate")
	}
}

func TestClientFolderThatIsNoUse(t *testing.T) {
	if _, err := ClientTLS(t.TempDir()); err == nil || !strings.Contains(err.Error(), "confinectl token create") {
		t.Errorf("an empty folder: %v", err)
	}
	ca, dir := openCA(t, t.TempDir()), t.TempDir()
	ca.now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
	keep(t, ca, dir)
	if _, err := ClientTLS(dir); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Errorf("a certificate that ended: %v", err)
	}
}

// FuzzSign reads certificate requests of machines that nobody knows yet: what
// is signed is a certificate of the name and role that were asked for by the
// server, whatever the request says.
func FuzzSign(f *testing.F) {
	ca, err := OpenCA(f.TempDir(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"server"}}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add(csr[:len(csr)/2])
	f.Fuzz(func(t *testing.T, csr []byte) {
		der, err := ca.Sign(csr, Identity{"n1", RoleAgent})
		if err != nil {
			return
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != "n1" || len(cert.DNSNames) > 0 || cert.IsCA {
			t.Errorf("signed %v for %v, a CA: %v", cert.Subject, cert.DNSNames, cert.IsCA)
		}
	})
}
