#include "textflag.h"

// As wake_amd64.s, step by step.

// func program()
TEXT ·program(SB), NOSPLIT|NOFRAME, $0-0
	SUB  $384, RSP
	MOVD RSP, R19
	MOVD RSP, R20
	ADD  $352, R19, R21

input:
	MOVD $0, R0
	MOVD R20, R1
	SUB  R20, R21, R2
	MOVD $63, R8        // read
	SVC
	MOVD $1, R22
	CMP  $0, R0
	BLE  exit
	ADD  R0, R20
	CMP  R21, R20
	BLO  input

	MOVD $0, R0
	MOVD R19, R1
	MOVD $112, R8       // clock_settime
	SVC
	MOVD $2, R22
	CBNZ R0, exit

	MOVD $0x6172752f7665642f, R1
	MOVD R1, 352(R19)
	MOVD $0x6d6f646e, R1
	MOVD R1, 360(R19)
	MOVD $-100, R0
	ADD  $352, R19, R1
	MOVD $1, R2
	MOVD $56, R8        // openat
	SVC
	MOVD R0, R20
	MOVD $3, R22
	CMP  $0, R0
	BLT  exit

	MOVD R20, R0
	MOVD $0x40085203, R1
	ADD  $16, R19, R2
	MOVD $29, R8        // ioctl
	SVC
	MOVD $3, R22
	CBNZ R0, exit

	MOVD R20, R0
	MOVD $0x5207, R1
	MOVD $0, R2
	MOVD $29, R8
	SVC
	MOVD $4, R22
	CBNZ R0, exit

	ADD  $288, R19, R0
	MOVD 280(R19), R1
	MOVD $161, R8       // sethostname
	SVC
	MOVD $5, R22
	CBNZ R0, exit
	MOVD $0, R22

exit:
	MOVD R22, R0
	MOVD $94, R8        // exit_group
	SVC
	WORD $0x0b0f0b0f    // where the program ends: programEnd looks for these

// func programStart() unsafe.Pointer
TEXT ·programStart(SB), NOSPLIT, $0-8
	MOVD $·program(SB), R0
	MOVD R0, ret+0(FP)
	RET
