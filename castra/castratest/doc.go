// Package castratest starts a project's VMs for a Go test and takes them down
// when the test ends:
//
//	func TestShop(t *testing.T) {
//		vms := castratest.Start(t, castratest.Options{})
//		resp, err := http.Get("http://" + vms.Address("web", 80))
//		...
//		vms.Run("db", "systemctl restart postgresql")
//	}
//
// Each Start has a workspace of its own, so that tests run beside each other
// and beside the VMs of `mage up`; the image cache is shared. Where VMs cannot
// run, the test is skipped with the reason. A test process that is killed
// leaves its VMs running: `mage status` from a directory without castra.toml
// lists them, and `mage down` there ends them.
package castratest
