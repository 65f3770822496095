package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	tokenPrefix = "confine1"
	secretSize  = 24 // bytes of randomness in a token
)

// ErrToken is wrapped by every refusal of a join token.
var ErrToken = errors.New("join token")

// Token is a one-time permission to join. Its text carries a secret and the
// digest of the CA certificate, so that both sides can check each other.
type Token struct {
	secret [secretSize]byte
	// Pin is the SHA-256 of the CA certificate to trust.
	Pin [sha256.Size]byte
}

// NewToken makes a token for the CA with this pin.
func NewToken(pin [sha256.Size]byte) (Token, error) {
	t := Token{Pin: pin}
	if _, err := rand.Read(t.secret[:]); err != nil {
		return Token{}, fmt.Errorf("make join token: %w", err)
	}
	return t, nil
}

// String returns the text that is handed to the joining side.
func (t Token) String() string {
	enc := base64.RawURLEncoding
	return tokenPrefix + "." + enc.EncodeToString(t.secret[:]) + "." + enc.EncodeToString(t.Pin[:])
}

// Hash is what the server keeps of a token: the hex SHA-256 of its secret.
func (t Token) Hash() string {
	sum := sha256.Sum256(t.secret[:])
	return hex.EncodeToString(sum[:])
}

// ParseToken reads the text of a token.
func ParseToken(text string) (Token, error) {
	bad := fmt.Errorf("%w is not complete: copy it whole, as `confinectl token create` printed it", ErrToken)
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return Token{}, bad
	}
	enc := base64.RawURLEncoding.Strict()
	secret, err := enc.DecodeString(parts[1])
	if err != nil || len(secret) != secretSize {
		return Token{}, bad
	}
	pin, err := enc.DecodeString(parts[2])
	if err != nil || len(pin) != sha256.Size {
		return Token{}, bad
	}
	var t Token
	copy(t.secret[:], secret)
	copy(t.Pin[:], pin)
	return t, nil
}
