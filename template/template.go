// Package template holds the files that `mage init` copies.
package template

import "embed"

// Project is the tree of a new project, below "project". A file that ends in
// .tmpl loses that ending, and {{.Name}} in it becomes the project's name;
// dot_ at the start of a name becomes a dot.
//
//go:embed all:project
var Project embed.FS
