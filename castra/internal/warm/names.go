package warm

// Names of the files of a template, for who fills one.
const (
	DiskName  = diskName
	RAMName   = ramName
	StateName = stateName
)

// Dir is where the store is.
func (s *Store) Dir() string { return s.dir }
