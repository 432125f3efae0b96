// Runs a rule of this folder natively on its vectors:
// cc -std=c11 -DRULE='"tiered.c"' -o vectors_test vectors_test.c && ./vectors_test tiered.tsv
#include RULE

#include "../../../plugins/sdk/c/doorbuster_test.h"

int main(int argc, char **argv) {
	if (argc != 2)
		return 2;
	run_vectors(argv[1]);
	return test_result();
}
