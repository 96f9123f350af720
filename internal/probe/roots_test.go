package probe

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/halevm/hale/internal/health"
)

// rootsEnv makes a process of this test one whose system trusts the certificate of the server at that port.
const rootsEnv = "HALE_TEST_ROOTS_PORT"

// With tls_skip_verify false the system's roots decide, and the name that was asked for.
func TestSystemRoots(t *testing.T) {
	if port := os.Getenv(rootsEnv); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		check := func(rest string) health.Result {
			return Run(t.Context(), loopback, policy(t, `{"http":{"port":%d,"scheme":"https","tls_skip_verify":false%s}}`, n, rest))
		}
		found(t, check(`,"tls_server_name":"example.com"`), health.Success, "status 200")
		found(t, check(`,"headers":{"Host":"example.com:8443"}`), health.Success, "status 200")
		found(t, check(`,"headers":{"Host":"example.com"},"tls_server_name":"other.test"`), health.Failure, "the certificate is refused")
		found(t, check(``), health.Failure, "the certificate is refused") // it is not localhost's
		return
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSystemRoots$", "-test.v")
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+roots, "SSL_CERT_DIR=/nonexistent", rootsEnv+"="+strconv.Itoa(srv.Listener.Addr().(*net.TCPAddr).Port))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
