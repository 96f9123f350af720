// Package hale is the Go client of hale.
package hale
