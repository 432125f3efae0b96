package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	json "github.com/goccy/go-json"

	"github.com/doorbuster/doorbuster/actors/deal"
	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A key is dbk_<role>_<id>_<secret>: the secret is 256 random bits in
// hexadecimal, and the store holds only its SHA-256. A slow hash protects
// passwords that people chose; nobody can guess a secret like this one.

// TableKeys has a row of each key. Its keys are what Keys.Refresh takes.
const TableKeys = "keys" // key id → keyRow

const (
	keysMax     = 100_000
	keyIDLen    = 12
	keySecret   = 32 // bytes
	keyHexBytes = 2 * keySecret
)

var keyPrefix = []byte("dbk_")

// Key is what may be told of a key.
type Key struct {
	ID       string `json:"key_id"`
	Role     string `json:"role"`
	Merchant string `json:"merchant_id,omitempty"`
}

// keyRow is a key as it is stored.
type keyRow struct {
	Role     string `json:"role"`
	Merchant string `json:"merchant,omitempty"`
	Hash     []byte `json:"hash"`
}

// keyEntry is a key as it is checked.
type keyEntry struct {
	principal
	hash [sha256.Size]byte
}

// Keys are the keys of operators and merchants. Looking one up takes no lock:
// each change makes a new map.
type Keys struct {
	tables journal.Tables
	mu     sync.Mutex // held by the one change or refresh under way
	byID   atomic.Pointer[map[string]*keyEntry]
}

// ErrKeyNotFound says that there is no key of that id.
var ErrKeyNotFound = errors.New("gateway: no such key")

// LoadKeys reads the keys from the tables.
func LoadKeys(ctx context.Context, tables journal.Tables) (*Keys, error) {
	k := &Keys{tables: tables}
	return k, k.Refresh(ctx, "")
}

// Refresh takes over what other nodes have changed of one key, or with "" of all.
func (k *Keys) Refresh(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refresh(ctx, id)
}

// refresh is Refresh for a caller who holds mu.
func (k *Keys) refresh(ctx context.Context, id string) error {
	byID := make(map[string]*keyEntry)
	add := func(id string, value []byte) error {
		var row keyRow
		if err := json.Unmarshal(value, &row); err != nil || len(row.Hash) != sha256.Size {
			return fmt.Errorf("key %s cannot be read: %w", id, errors.Join(journal.ErrCorrupt, err))
		}
		byID[id] = row.entry(id)
		return nil
	}
	var err error
	if id == "" {
		err = k.tables.Scan(ctx, TableKeys, "", "", add)
	} else {
		maps.Copy(byID, *k.byID.Load())
		delete(byID, id)
		var value []byte
		if value, err = k.tables.Get(ctx, TableKeys, id); err == nil {
			err = add(id, value)
		} else if errors.Is(err, journal.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("load the keys: %w", err)
	}
	k.byID.Store(&byID)
	return nil
}

func (row *keyRow) entry(id string) *keyEntry {
	e := &keyEntry{principal: principal{role: roleNames[row.Role], name: []byte(row.Merchant)}}
	if e.role == operator {
		e.name = []byte(id)
	}
	copy(e.hash[:], row.Hash)
	return e
}

// CheckHolder says whether a key can be for a role, which is operator or merchant,
// and a merchant, whom a merchant's key alone has.
func CheckHolder(roleName, merchantID string) error {
	switch {
	case roleNames[roleName] == 0:
		return refuseField(invalidRequest, "role", "must be operator or merchant")
	case roleNames[roleName] == merchant && !deal.ValidID(merchantID):
		return refuseField(invalidRequest, "merchant_id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	case roleNames[roleName] == operator && merchantID != "":
		return refuseField(invalidRequest, "merchant_id", "does not go with the role operator")
	}
	return nil
}

// Create makes a key and returns it in full, for the only time. CheckHolder has
// the rules for roleName and merchantID.
func (k *Keys) Create(ctx context.Context, roleName, merchantID string) (Key, string, error) {
	if err := CheckHolder(roleName, merchantID); err != nil {
		return Key{}, "", err
	}
	var secret [keySecret]byte
	rand.Read(secret[:]) // never fails: crypto/rand ends the process instead
	hash := sha256.Sum256(secret[:])
	row := keyRow{Role: roleName, Merchant: merchantID, Hash: hash[:]}
	value, err := json.Marshal(&row)
	if err != nil {
		return Key{}, "", err
	}
	id := strings.ToLower(rand.Text()[:keyIDLen])
	err = k.change(ctx, journal.Mutation{Table: TableKeys, Key: id, Value: value}, func(m map[string]*keyEntry) error {
		if len(m) >= keysMax {
			return fmt.Errorf("gateway: there are %d keys already", keysMax)
		}
		m[id] = row.entry(id)
		return nil
	})
	if err != nil {
		return Key{}, "", err
	}
	full := fmt.Sprintf("%s%s_%s_%s", keyPrefix, roleName, id, hex.EncodeToString(secret[:]))
	return Key{ID: id, Role: roleName, Merchant: merchantID}, full, nil
}

// Revoke ends a key at once. ErrKeyNotFound.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	return k.change(ctx, journal.Mutation{Table: TableKeys, Key: id}, func(m map[string]*keyEntry) error {
		if m[id] == nil {
			return ErrKeyNotFound
		}
		delete(m, id)
		return nil
	})
}

// List returns all keys, by id.
func (k *Keys) List() []Key {
	m := *k.byID.Load()
	list := make([]Key, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		key := Key{ID: id, Role: m[id].role.String()}
		if m[id].role == merchant {
			key.Merchant = string(m[id].name)
		}
		list = append(list, key)
	}
	return list
}

// change makes a change durable before anybody can see it.
func (k *Keys) change(ctx context.Context, row journal.Mutation, edit func(map[string]*keyEntry) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(ctx, row.Key); err != nil { // another node may have made it, or ended it
		return err
	}
	m := maps.Clone(*k.byID.Load())
	if err := edit(m); err != nil {
		return err
	}
	var free []journal.Expectation
	if row.Value != nil {
		free = append(free, journal.Expectation{Table: row.Table, Key: row.Key})
	}
	if err := k.tables.ApplyIf(ctx, free, []journal.Mutation{row}, true); err != nil {
		return fmt.Errorf("store the keys: %w", err)
	}
	k.byID.Store(&m)
	return nil
}

// caller returns whose key token is, or nil. It allocates nothing.
func (k *Keys) caller(token []byte) *principal {
	roleName, rest, _ := bytes.Cut(token[len(keyPrefix):], underscore)
	id, digits, _ := bytes.Cut(rest, underscore)
	var secret [keySecret]byte
	if len(digits) != keyHexBytes {
		return nil
	}
	if _, err := hex.Decode(secret[:], digits); err != nil {
		return nil
	}
	e := (*k.byID.Load())[string(id)]
	if e == nil || roleNames[string(roleName)] != e.role {
		return nil
	}
	hash := sha256.Sum256(secret[:])
	if subtle.ConstantTimeCompare(hash[:], e.hash[:]) != 1 {
		return nil
	}
	return &e.principal
}

var underscore = []byte("_")
