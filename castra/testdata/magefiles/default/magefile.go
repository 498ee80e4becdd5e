//go:build mage

// A project where plain `mage` brings the VMs up.
package main

import (
	//mage:import
	"castra.example/castra/castra"
)

var Default = castra.Up
