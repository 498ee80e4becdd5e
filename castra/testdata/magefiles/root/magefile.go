//go:build mage

package main

import (
	//mage:import
	_ "castra.example/castra/castra"
)
