//go:build mage

// A project with a Clean of its own.
package main

import (
	"fmt"

	//mage:import vm
	_ "castra.example/castra/castra"
)

// Clean removes what was built.
func Clean() { fmt.Println("own clean") }
