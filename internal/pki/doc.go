// Package pki is the trust between a Confine server and those who talk to it:
// the server's embedded certificate authority, one-time join tokens that pin
// it, and the client's side of enrolment and renewal.
//
// A certificate names its holder in the common name and says what the holder
// may do in the organisational unit (see Role). Nothing else in it matters.
package pki
