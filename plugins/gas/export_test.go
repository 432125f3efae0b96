package gas

// Sources are the files that Revision depends on.
func Sources() (names []string) {
	entries, err := sources.ReadDir(".")
	if err != nil {
		panic(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
