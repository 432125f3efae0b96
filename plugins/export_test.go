package plugins

// Loaded is how many versions have a program.
func (r *Registry) Loaded() (n int) {
	for _, u := range *r.rules.Load() {
		for _, v := range u.versions {
			if v.program.Load() != nil {
				n++
			}
		}
	}
	return n
}

// LoadersMax is how many versions a start loads at once.
const LoadersMax = loadersMax
