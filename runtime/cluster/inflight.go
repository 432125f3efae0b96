package cluster

// inFlight is the requests that wait for an answer from one peer: a table whose
// places are used again, so that nothing is allocated for each of them.
type inFlight struct {
	limit  int // of places
	places []place
	free   []int32 // indexes of places that hold nothing
	next   int64   // no deadline is before it (Mono ns)
}

// place holds one request, or nothing if done is nil.
type place struct {
	done     Done
	deadline int64
	life     uint64 // rises with each request that it held: the late answer to an earlier one finds nothing
}

// add takes a request in and gives it a number, or says that there is no place left.
func (f *inFlight) add(done Done, deadline int64) (id uint64, ok bool) {
	if len(f.free) == 0 && len(f.places) == f.limit {
		return 0, false
	}
	if f.len() == 0 || deadline < f.next {
		f.next = deadline
	}
	if len(f.free) == 0 {
		f.free = append(f.free, int32(len(f.places)))
		f.places = append(f.places, place{})
	}
	i := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	p := &f.places[i]
	p.done, p.deadline = done, deadline
	p.life++
	return p.life*uint64(f.limit) + uint64(i), true
}

// take takes a request out: nil if it ended before.
func (f *inFlight) take(id uint64) Done {
	i := id % uint64(f.limit)
	if i >= uint64(len(f.places)) || f.places[i].life != id/uint64(f.limit) {
		return nil
	}
	return f.clear(int32(i))
}

// takeDue appends those whose deadline is at or before now to ended, and takes them out.
func (f *inFlight) takeDue(now int64, ended []Done) []Done {
	if f.len() == 0 || now < f.next {
		return ended
	}
	f.next = 1<<63 - 1
	for i := range f.places {
		p := &f.places[i]
		switch {
		case p.done == nil:
		case p.deadline <= now:
			ended = append(ended, f.clear(int32(i)))
		default:
			f.next = min(f.next, p.deadline)
		}
	}
	return ended
}

// takeAll takes all of them out.
func (f *inFlight) takeAll() []Done { return f.takeDue(1<<63-1, nil) }

func (f *inFlight) len() int { return len(f.places) - len(f.free) }

func (f *inFlight) clear(i int32) Done {
	done := f.places[i].done
	if done != nil {
		f.places[i].done = nil
		f.free = append(f.free, i)
	}
	return done
}
