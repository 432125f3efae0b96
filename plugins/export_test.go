package plugins

import "fmt"

// Room says whether acme may store a module more, for a rule of theirs or another, when
// they have so many rules of so many versions.
func Room(id string, rules, versions int) error {
	known := map[ruleKey]*rule{}
	for n := range rules {
		key := ruleKey{"acme", fmt.Sprint("r-", n)}
		known[key] = &rule{key: key}
		for range versions {
			known[key].versions = append(known[key].versions, &version{})
		}
	}
	r := &Registry{}
	r.rules.Store(&known)
	return r.room(ruleKey{"acme", id}, 1)
}

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

// HasProgram says whether a version of a rule has a program.
func (r *Registry) HasProgram(merchant, id string, n int) bool {
	return (*r.rules.Load())[ruleKey{merchant, id}].versions[n-1].program.Load() != nil
}

// LoadersMax is how many versions a start loads at once.
const LoadersMax = loadersMax
