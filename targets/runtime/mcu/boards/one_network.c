/* An image with a single network, for builds by hand: its digest is the network's. */
#include "server.h"

static const edgeofa_network *const networks[] = {&edgeofa_network_description};

const edgeofa_image edgeofa_this_image = {EDGEOFA_TARGET, edgeofa_digest, EDGEOFA_CLOCK_HZ, 1,
                                          networks};
