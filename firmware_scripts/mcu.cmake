# Firmware for a microcontroller: the board's files, the serial protocol, and one network.
#   EDGEOFA_MCU       a target of targets/, such as nucleo-l4r5zi
#   EDGEOFA_NETWORK   the folder that `edgeofa compile --emit c` wrote
# Core and memory map are read from the target file, so that they are written in one place only.
get_filename_component(root "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(runtime ${root}/targets/runtime/mcu)
file(READ ${root}/targets/${EDGEOFA_MCU}.toml target_file)
string(REGEX REPLACE "^.*\n\\[mcu\\]\n" "" mcu "${target_file}")

function(edgeofa_value name pattern result)
  if(NOT mcu MATCHES "(^|\n)${name} = ${pattern}" AND NOT ARGN)
    message(FATAL_ERROR "targets/${EDGEOFA_MCU}.toml has no ${name} in [mcu]")
  endif()
  if(ARGN AND NOT mcu MATCHES "(^|\n)${name} = ${pattern}")
    set(${result} "" PARENT_SCOPE)
  else()
    set(${result} "${CMAKE_MATCH_2}" PARENT_SCOPE)
    set(${result}_bytes "${CMAKE_MATCH_3}" PARENT_SCOPE)
  endif()
endfunction()

edgeofa_value(board "\"([a-z0-9_]+)\"" board)
edgeofa_value(cpu "\"([a-z0-9-]+)\"" cpu)
edgeofa_value(fpu "\"([a-z0-9-]+)\"" fpu OPTIONAL)
edgeofa_value(flash "{ origin = (0x[0-9A-Fa-f]+), bytes = (0x[0-9A-Fa-f]+) }" flash)
edgeofa_value(ram "{ origin = (0x[0-9A-Fa-f]+), bytes = (0x[0-9A-Fa-f]+) }" ram)
edgeofa_value(stack_bytes "([0-9]+)" stack)
edgeofa_value(flash_wait_states "([0-9]+)" wait_states)
edgeofa_value(baud "([0-9]+)" baud)
if(NOT target_file MATCHES "\nclock_hz = ([0-9]+)e6\n")
  message(FATAL_ERROR "targets/${EDGEOFA_MCU}.toml has no clock_hz")
endif()
set(clock "${CMAKE_MATCH_1}000000u")

set(core -mcpu=${cpu} -mthumb -mfloat-abi=hard)
if(fpu)
  list(APPEND core -mfpu=${fpu})
endif()

if(NOT EXISTS ${EDGEOFA_NETWORK}/edgeofa_network.c)
  message(FATAL_ERROR "EDGEOFA_NETWORK is not a folder that `edgeofa compile --emit c` wrote")
endif()
file(GLOB network_sources CONFIGURE_DEPENDS ${EDGEOFA_NETWORK}/*.c)
add_executable(firmware
  ${network_sources}
  ${runtime}/protocol/frame.c
  ${runtime}/protocol/server.c
  ${runtime}/boards/main.c
  ${runtime}/boards/startup.c
  ${runtime}/boards/cycles.c
  ${runtime}/boards/one_network.c
  ${runtime}/boards/${board}.c)
set_target_properties(firmware PROPERTIES SUFFIX .elf
  LINK_DEPENDS ${root}/firmware_scripts/linker/cortex_m.ld)
target_include_directories(firmware PRIVATE ${EDGEOFA_NETWORK} ${runtime}/protocol ${runtime}/boards)
target_compile_options(firmware PRIVATE ${core} -O2 -fomit-frame-pointer -ffunction-sections
  -fdata-sections -ffreestanding)
target_compile_definitions(firmware PRIVATE EDGEOFA_LAYER_HOOKS EDGEOFA_TARGET="${EDGEOFA_MCU}"
  EDGEOFA_CLOCK_HZ=${clock} EDGEOFA_BAUD=${baud}u EDGEOFA_FLASH_WAIT_STATES=${wait_states}u)
target_link_options(firmware PRIVATE ${core} -nostartfiles -specs=nano.specs
  -T ${root}/firmware_scripts/linker/cortex_m.ld -Wl,--gc-sections -Wl,--build-id=none
  -Wl,--no-warn-rwx-segments
  -Wl,--defsym=edgeofa_flash_origin=${flash} -Wl,--defsym=edgeofa_flash_bytes=${flash_bytes}
  -Wl,--defsym=edgeofa_ram_origin=${ram} -Wl,--defsym=edgeofa_ram_bytes=${ram_bytes}
  -Wl,--defsym=edgeofa_stack_bytes=${stack})
add_custom_command(TARGET firmware POST_BUILD
  COMMAND ${CMAKE_OBJCOPY} -O binary $<TARGET_FILE:firmware> firmware.bin)
