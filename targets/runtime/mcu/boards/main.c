/* The firmware: a board, its cycle counter, and the server that the host speaks to. */
#include "../protocol/server.h"
#include "board.h"
#include "cycles.h"
#include "startup.h"

int main(void) {
  static server_board board = {
      .write = board_write,
      .restart = cycles_restart,
      .stop = cycles_stop,
      .cycles = cycles_now,
      .memory = startup_stack,
  };
  board_start();
  board.timer = cycles_start();
  server_start(&board);
  for (;;) {
    int byte = board_read();
    if (byte >= 0)
      server_feed((uint8_t)byte);
    else
      board_wait();
  }
}
