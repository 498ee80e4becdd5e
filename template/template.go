// Package template holds the files that `mage init` copies.
package template

import "embed"

// Project is the tree of a new project, below "project". Files that end in
// .tmpl are text templates with the field Name, and lose that
// ending; dot_ at the start of a name stands for a dot.
//
//go:embed all:project
var Project embed.FS
