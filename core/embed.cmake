# Makes a C header of a file: cmake -DFROM=FILE -DTO=HEADER -DNAME=ARRAY -P embed.cmake
file(READ "${FROM}" bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE "${TO}" "static const unsigned char ${NAME}[] = {${bytes}0};\n")
