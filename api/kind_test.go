package api

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorIsItsKind(t *testing.T) {
	err := fmt.Errorf("create: %w", &Error{Kind: Conflict, Code: "name_conflict", Message: `the name "web" is taken`})
	if !errors.Is(err, Conflict) || errors.Is(err, NotFound) {
		t.Errorf("%v is of the wrong kind", err)
	}
	if got, ok := errors.AsType[Kind](err); !ok || got != Conflict {
		t.Errorf("as a Kind it is %q, %v", got, ok)
	}
	if got := err.Error(); got != `create: the name "web" is taken` {
		t.Errorf("says %q", got)
	}
	if got := (&Error{Kind: Conflict, Code: "name_conflict"}).Error(); got != "name_conflict" {
		t.Errorf("without words it says %q", got)
	}
}
