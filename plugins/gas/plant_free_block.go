//go:build plant_free_block

package gas

// plantFreeBlock is a bug on purpose, for proof that the tests find it: the build
// charges no fuel for a block that ends in an if.
const plantFreeBlock = true
