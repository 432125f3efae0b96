package gas

import "strings"

// funcType is a signature: value types as encoded, parameters then results.
type funcType struct{ params, results string }

func (t funcType) String() string {
	return "func (" + typeNames(t.params) + ") → (" + typeNames(t.results) + ")"
}

func typeNames(types string) string {
	names := map[byte]string{
		i32Type: "i32", i64Type: "i64", f32Type: "f32", f64Type: "f64", v128Type: "v128",
		funcrefType: "funcref", externrefType: "externref",
	}
	list := make([]string, len(types))
	for i := range len(types) {
		list[i] = names[types[i]]
	}
	return strings.Join(list, " ")
}

const (
	tI = "\x7f" // i32
	tL = "\x7e" // i64
)

// abiFunctions are the functions that the ABI knows by their export's name.
var abiFunctions = []struct {
	name     string
	required bool
	funcType
}{
	{exportABI, true, funcType{}},
	{exportBuffer, true, funcType{tI, tI}},
	{exportEvaluate, true, funcType{tI, tL}},
	{exportInit, false, funcType{tI, tI}},
	{exportInitialize, false, funcType{}},
}

// importable is every function that a rule may import, by module and name: the
// log, and WASI preview 1 as its standard defines it.
var importable = map[[2]string]funcType{
	{"doorbuster", "log"}: {tI + tI, ""},

	wasi("args_get"):                {tI + tI, tI},
	wasi("args_sizes_get"):          {tI + tI, tI},
	wasi("clock_res_get"):           {tI + tI, tI},
	wasi("clock_time_get"):          {tI + tL + tI, tI},
	wasi("environ_get"):             {tI + tI, tI},
	wasi("environ_sizes_get"):       {tI + tI, tI},
	wasi("fd_advise"):               {tI + tL + tL + tI, tI},
	wasi("fd_allocate"):             {tI + tL + tL, tI},
	wasi("fd_close"):                {tI, tI},
	wasi("fd_datasync"):             {tI, tI},
	wasi("fd_fdstat_get"):           {tI + tI, tI},
	wasi("fd_fdstat_set_flags"):     {tI + tI, tI},
	wasi("fd_fdstat_set_rights"):    {tI + tL + tL, tI},
	wasi("fd_filestat_get"):         {tI + tI, tI},
	wasi("fd_filestat_set_size"):    {tI + tL, tI},
	wasi("fd_filestat_set_times"):   {tI + tL + tL + tI, tI},
	wasi("fd_pread"):                {tI + tI + tI + tL + tI, tI},
	wasi("fd_prestat_dir_name"):     {tI + tI + tI, tI},
	wasi("fd_prestat_get"):          {tI + tI, tI},
	wasi("fd_pwrite"):               {tI + tI + tI + tL + tI, tI},
	wasi("fd_read"):                 {tI + tI + tI + tI, tI},
	wasi("fd_readdir"):              {tI + tI + tI + tL + tI, tI},
	wasi("fd_renumber"):             {tI + tI, tI},
	wasi("fd_seek"):                 {tI + tL + tI + tI, tI},
	wasi("fd_sync"):                 {tI, tI},
	wasi("fd_tell"):                 {tI + tI, tI},
	wasi("fd_write"):                {tI + tI + tI + tI, tI},
	wasi("path_create_directory"):   {tI + tI + tI, tI},
	wasi("path_filestat_get"):       {tI + tI + tI + tI + tI, tI},
	wasi("path_filestat_set_times"): {tI + tI + tI + tI + tL + tL + tI, tI},
	wasi("path_link"):               {tI + tI + tI + tI + tI + tI + tI, tI},
	wasi("path_open"):               {tI + tI + tI + tI + tI + tL + tL + tI + tI, tI},
	wasi("path_readlink"):           {tI + tI + tI + tI + tI + tI, tI},
	wasi("path_remove_directory"):   {tI + tI + tI, tI},
	wasi("path_rename"):             {tI + tI + tI + tI + tI + tI, tI},
	wasi("path_symlink"):            {tI + tI + tI + tI + tI, tI},
	wasi("path_unlink_file"):        {tI + tI + tI, tI},
	wasi("poll_oneoff"):             {tI + tI + tI + tI, tI},
	wasi("proc_exit"):               {tI, ""},
	wasi("proc_raise"):              {tI, tI},
	wasi("random_get"):              {tI + tI, tI},
	wasi("sched_yield"):             {"", tI},
	wasi("sock_accept"):             {tI + tI + tI, tI},
	wasi("sock_recv"):               {tI + tI + tI + tI + tI + tI, tI},
	wasi("sock_send"):               {tI + tI + tI + tI + tI, tI},
	wasi("sock_shutdown"):           {tI + tI, tI},
}

func wasi(name string) [2]string { return [2]string{"wasi_snapshot_preview1", name} }

// Importable calls fn for every function that a rule may import, with the
// encoded value types of its parameters and results, so that a host can prove it
// provides each of them.
func Importable(fn func(module, name string, params, results []byte)) {
	for key, t := range importable {
		fn(key[0], key[1], []byte(t.params), []byte(t.results))
	}
}
