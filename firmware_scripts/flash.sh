#!/bin/sh
# Write an image to a board with its debug probe: flash.sh FIRMWARE.elf TARGET
# `edgeofa flash` does the same, knows more methods, and asks the firmware afterwards.
set -eu
[ $# = 2 ] && [ -f "$1" ] || { echo "usage: $0 FIRMWARE.elf TARGET" >&2; exit 2; }
case $2 in
  nucleo-l4r5zi) set -- "$1" -f board/st_nucleo_l4.cfg ;;
  nucleo-h7a3zi) set -- "$1" -f interface/stlink.cfg -f target/stm32h7x.cfg ;;
  stm32f746-disco) set -- "$1" -f board/stm32f746g-disco.cfg ;;
  nrf5340) exec pyocd flash --target nrf5340_xxaa --format elf "$1" ;;
  *) echo "$0: no board for the target $2" >&2; exit 2 ;;
esac
image=$1
shift
exec openocd "$@" -c "program {$image} verify reset exit"
