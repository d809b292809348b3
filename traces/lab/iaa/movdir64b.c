// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MOVDIR64B for QEMU's TCG, which does not know the instruction, as a plugin: nothing is added in the guest.
 *
 *	-plugin movdir64b.so,socket=/path	each instruction sends a datagram to the socket
 *	-plugin movdir64b.so,check=on		QEMU loads it, says which plugin API it has, and ends
 *
 * A callback stands before each MOVDIR64B of a translated block. It reads both operands, sends the physical address (8
 * bytes, little endian) and the 64 bytes of the source as one datagram, and continues behind the instruction. Which
 * device an address belongs to is for the receiver to know. An instruction that faults, or whose target is not aligned,
 * is left to TCG, which raises #UD.
 *
 * The instruction: Intel's Software Developer's Manual, volume 2, MOVDIR64B: 66 0F 38 F8 /r, the register operand holds
 * the target's address, the memory operand is the source. The declarations are those of QEMU's plugin API and GLib,
 * whose headers need not be installed; the plugin is linked to nothing, so that it loads into a QEMU with another libc.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define API 7			/* QEMU 11.1: registers, memory by virtual address, set_pc */
#define SIZE 64
#define LONGEST 15		/* of any instruction */
#define PAGE 4096

typedef struct { uint8_t *data; unsigned int len; } bytes;	/* as GByteArray and GArray begin */
struct reg { void *handle; const char *name, *feature; bool is_readonly; };
struct info { const char *target; struct { int min, cur; } version; bool system; };

extern bytes *g_byte_array_new(void);
extern void g_byte_array_unref(bytes *);
extern char *g_array_free(bytes *, int);
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(void *, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const void *);
extern void *qemu_plugin_tb_get_insn(const void *, size_t);
extern size_t qemu_plugin_insn_data(const void *, void *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(void *, void (*)(unsigned int, void *), int flags, void *);
extern bytes *qemu_plugin_get_registers(void);
extern bool qemu_plugin_read_register(void *, bytes *);
extern bool qemu_plugin_read_memory_vaddr(uint64_t, bytes *, size_t);
extern bool qemu_plugin_translate_vaddr(uint64_t, uint64_t *);
extern void qemu_plugin_set_pc(uint64_t);	/* does not return */

enum { RW_REGS_PC = 3 };

__attribute__((visibility("default"))) int qemu_plugin_version = API;

static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
				       "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
static void *handles[16];
static struct sockaddr_un peer = { .sun_family = AF_UNIX };
static int out = -1;
static bool complained;

static void find_registers(void)
{
	bytes *all = qemu_plugin_get_registers();

	for (unsigned int k = 0; k < all->len; k++) {
		struct reg *one = (struct reg *)all->data + k;

		for (int n = 0; n < 16; n++)
			if (!strcmp(one->name, names[n]))
				handles[n] = one->handle;
	}
	g_array_free(all, 1);
}

static uint64_t value_of(int number)
{
	bytes *read = g_byte_array_new();
	uint64_t value = 0;

	if (qemu_plugin_read_register(handles[number], read) && read->len >= sizeof(value))
		memcpy(&value, read->data, sizeof(value));
	g_byte_array_unref(read);
	return value;
}

static bool copy(uint64_t from, void *to, size_t size)
{
	bytes *read = g_byte_array_new();
	bool good = qemu_plugin_read_memory_vaddr(from, read, size) && read->len >= size;

	if (good)
		memcpy(to, read->data, size);
	g_byte_array_unref(read);
	return good;
}

static int64_t far(const uint8_t *p)
{
	int32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

/* The length of the MOVDIR64B at @pc, with both addresses; 0 where it has no memory operand. */
static int decode(uint64_t pc, const uint8_t *code, uint64_t *target, uint64_t *source)
{
	const uint8_t *p = code + 1;
	int rex = (*p & 0xf0) == 0x40 ? *p++ : 0;
	int modrm = p[3], mod = modrm >> 6, rm = modrm & 7;
	uint64_t address = 0;

	p += 4;
	if (mod == 3)
		return 0;
	*target = value_of((modrm >> 3 & 7) | (rex & 4 ? 8 : 0));
	if (rm == 4) {
		int sib = *p++, index = (sib >> 3 & 7) | (rex & 2 ? 8 : 0);

		if (index != 4)
			address += value_of(index) << (sib >> 6);
		if ((sib & 7) == 5 && !mod) {
			address += far(p);
			p += 4;
		} else {
			address += value_of((sib & 7) | (rex & 1 ? 8 : 0));
		}
	} else if (rm == 5 && !mod) {
		address = pc + (p + 4 - code) + far(p);
		p += 4;
	} else {
		address = value_of(rm | (rex & 1 ? 8 : 0));
	}
	if (mod == 1)
		address += (int8_t)*p++;
	if (mod == 2) {
		address += far(p);
		p += 4;
	}
	*source = address;
	return p - code;
}

static void on_movdir64b(unsigned int cpu, void *where)
{
	uint64_t pc = (uintptr_t)where, target, source, physical;
	uint8_t code[LONGEST + 1] = { 0 }, message[8 + SIZE];
	size_t here = PAGE - pc % PAGE;
	int length;

	(void)cpu;
	/* The page behind the instruction's need not be there. */
	if (!copy(pc, code, LONGEST) && (here >= LONGEST || !copy(pc, code, here)))
		return;
	if (!handles[0])
		find_registers();
	length = decode(pc, code, &target, &source);
	if (!length || target % SIZE || !qemu_plugin_translate_vaddr(target, &physical) || !copy(source, message + 8, SIZE))
		return;
	memcpy(message, &physical, sizeof(physical));
	if (sendto(out, message, sizeof(message), 0, (void *)&peer, sizeof(peer)) != sizeof(message) && !complained) {
		complained = true;
		perror("movdir64b: the device's server does not take what is written to it");
	}
	qemu_plugin_set_pc(pc + length);
}

static void on_translation(void *block, void *data)
{
	(void)data;
	for (size_t k = 0; k < qemu_plugin_tb_n_insns(block); k++) {
		void *one = qemu_plugin_tb_get_insn(block, k);
		uint8_t code[5] = { 0 };
		size_t got = qemu_plugin_insn_data(one, code, sizeof(code));
		int rex = (code[1] & 0xf0) == 0x40;

		if (got >= 4u + rex && code[0] == 0x66 && code[1 + rex] == 0x0f && code[2 + rex] == 0x38 && code[3 + rex] == 0xf8)
			qemu_plugin_register_vcpu_insn_exec_cb(one, on_movdir64b, RW_REGS_PC,
							       (void *)(uintptr_t)qemu_plugin_insn_vaddr(one));
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const struct info *info, int argc, char **argv)
{
	for (int k = 0; k < argc; k++) {
		if (!strcmp(argv[k], "check=on")) {
			printf("movdir64b: plugin API %d to %d\n", info->version.min, info->version.cur);
			exit(0);
		}
		if (!strncmp(argv[k], "socket=", 7) && strlen(argv[k] + 7) < sizeof(peer.sun_path))
			strcpy(peer.sun_path, argv[k] + 7);
	}
	out = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (out < 0 || !*peer.sun_path) {
		fprintf(stderr, "movdir64b: needs socket=PATH of a datagram socket\n");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
	return 0;
}
