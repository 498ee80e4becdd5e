// Command mage is mage itself, so that `go run ./mage TARGET` works where
// nothing but Go is installed.
package main

import (
	"os"

	"github.com/magefile/mage/mage"
)

func main() { os.Exit(mage.Main()) }
