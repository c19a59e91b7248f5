/* The version of the library, for programs that were compiled at another time. */
#include <bulkhead_version.h>

const char *bh_version(void)
{
	return BH_VERSION;
}
