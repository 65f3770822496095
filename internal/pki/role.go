package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
)

// Role says what the holder of a certificate may do.
type Role string

// Roles. An operator may do everything that a reader may.
const (
	RoleAgent    Role = "agent"
	RoleOperator Role = "operator"
	RoleReader   Role = "reader"
)

// ParseRole accepts the names of the roles that a token can be made for.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleAgent, RoleOperator, RoleReader:
		return r, nil
	}
	return "", fmt.Errorf("role %q is unknown: use agent, operator or reader", s)
}

// Identity is who a certificate speaks for.
type Identity struct {
	Name string
	Role Role
}

// namePattern keeps names usable as store keys, host names and log fields.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName reports whether a node or operator can have this name.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("name %q cannot be used: it needs 1 to 63 of a-z, 0-9, '.', '_' and '-', "+
			"beginning and ending with a letter or digit", name)
	}
	return nil
}

// FromCertificate reads the identity of a client certificate that has been
// verified against the CA.
func FromCertificate(cert *x509.Certificate) (Identity, error) {
	if len(cert.Subject.OrganizationalUnit) != 1 {
		return Identity{}, errors.New("certificate states no role: join again with a new token")
	}
	role, err := ParseRole(cert.Subject.OrganizationalUnit[0])
	if err != nil {
		return Identity{}, err
	}
	if err := CheckName(cert.Subject.CommonName); err != nil {
		return Identity{}, err
	}
	return Identity{Name: cert.Subject.CommonName, Role: role}, nil
}
