/* From here on, this process reads a clock that advances by a microsecond with every reading.
 *
 * For runs under an emulator, whose counts must not depend on how busy its host is: LiteRT's matrix
 * library tunes itself again when 250 ms have passed, and those are the host's. */
#pragma once

void virtual_clock_start(void);
