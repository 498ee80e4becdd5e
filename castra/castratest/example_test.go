package castratest_test

import (
	"net/http"
	"testing"

	"castra.example/castra/castra"
	"castra.example/castra/castra/castratest"
)

func ExampleStart() {
	var t *testing.T // the parameter of your test

	vms := castratest.Start(t, castratest.Options{})
	resp, err := http.Get("http://" + vms.Address("web", 80))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	vms.Run("db", "systemctl restart postgresql")
}

// Some of the VMs, and a failure where VMs cannot run, as on a CI server that
// must have them.
func ExampleStart_required() {
	var t *testing.T // the parameter of your test

	vms := castratest.Start(t, castratest.Options{
		UpOptions: castra.UpOptions{VMs: []string{"web"}},
		Required:  true,
	})
	vms.Copy("testdata/site", "web:/srv/site")
}
