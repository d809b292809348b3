// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MOVDIR64B for a guest whose processor does not have it, where QEMU's plugin for it (../movdir64b.c) cannot be compiled.
 *
 * The processor raises #UD, and this module, called by the kernel's own die chain, does what the instruction would: 64 bytes
 * from memory to one place of a device's portal. Kernel mode only. The eight stores are kept together by a lock, as the
 * instruction is atomic and idxd relies on it: two CPUs may be given the same place of a portal.
 */
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kdebug.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <asm/cpufeature.h>
#include <asm/ptrace.h>
#include <asm/trapnr.h>

static unsigned long emulated;
module_param(emulated, ulong, 0444);
MODULE_PARM_DESC(emulated, "Instructions emulated so far");

static DEFINE_RAW_SPINLOCK(portal_lock);

static unsigned long *reg_of(struct pt_regs *regs, int n)
{
	switch (n) {
	case 0: return &regs->ax;
	case 1: return &regs->cx;
	case 2: return &regs->dx;
	case 3: return &regs->bx;
	case 4: return &regs->sp;
	case 5: return &regs->bp;
	case 6: return &regs->si;
	case 7: return &regs->di;
	case 8: return &regs->r8;
	case 9: return &regs->r9;
	case 10: return &regs->r10;
	case 11: return &regs->r11;
	case 12: return &regs->r12;
	case 13: return &regs->r13;
	case 14: return &regs->r14;
	default: return &regs->r15;
	}
}

/* Length of a MOVDIR64B at @ip, with where it goes and what it reads; 0: it is something else. */
static int decode(struct pt_regs *regs, const u8 *ip, unsigned long *dst, unsigned long *src)
{
	const u8 *p = ip;
	u8 rex = 0, modrm;
	int mod, rm;
	long addr = 0;

	if (*p++ != 0x66)
		return 0;
	if ((*p & 0xf0) == 0x40)
		rex = *p++;
	if (p[0] != 0x0f || p[1] != 0x38 || p[2] != 0xf8)
		return 0;
	p += 3;
	modrm = *p++;
	mod = modrm >> 6;
	rm = modrm & 7;
	if (mod == 3)
		return 0;
	*dst = *reg_of(regs, ((modrm >> 3) & 7) | (rex & 4 ? 8 : 0));
	if (rm == 4) {
		u8 sib = *p++;
		int base = sib & 7, index = ((sib >> 3) & 7) | (rex & 2 ? 8 : 0);

		if (index != 4)
			addr += *reg_of(regs, index) << (sib >> 6);
		if (base == 5 && mod == 0) {
			addr += *(s32 *)p;
			p += 4;
		} else {
			addr += *reg_of(regs, base | (rex & 1 ? 8 : 0));
		}
	} else if (rm == 5 && mod == 0) {
		addr = (long)p + 4 + *(s32 *)p;
		p += 4;
	} else {
		addr = *reg_of(regs, rm | (rex & 1 ? 8 : 0));
	}
	if (mod == 1)
		addr += *(s8 *)p++;
	if (mod == 2) {
		addr += *(s32 *)p;
		p += 4;
	}
	*src = addr;
	return p - ip;
}

static int on_die(struct notifier_block *nb, unsigned long val, void *data)
{
	struct die_args *args = data;
	struct pt_regs *regs = args->regs;
	unsigned long dst, src, flags;
	int length, i;

	if (val != DIE_TRAP || args->trapnr != X86_TRAP_UD || user_mode(regs))
		return NOTIFY_DONE;
	length = decode(regs, (const u8 *)regs->ip, &dst, &src);
	if (!length || dst & 63)
		return NOTIFY_DONE;
	raw_spin_lock_irqsave(&portal_lock, flags);
	for (i = 0; i < 8; i++)
		writeq(((u64 *)src)[i], (u64 __iomem *)dst + i);
	emulated++;
	raw_spin_unlock_irqrestore(&portal_lock, flags);
	regs->ip += length;
	return NOTIFY_STOP;
}

static struct notifier_block die_block = { .notifier_call = on_die, .priority = INT_MAX };

static int __init emu_init(void)
{
	bool had = boot_cpu_has(X86_FEATURE_MOVDIR64B);

	if (!had)
		set_cpu_cap(&boot_cpu_data, X86_FEATURE_MOVDIR64B);
	pr_info("movdir64b_emu: CPUID %s MOVDIR64B, it is claimed: %d\n", had ? "has" : "has no",
		boot_cpu_has(X86_FEATURE_MOVDIR64B));
	return register_die_notifier(&die_block);
}

static void __exit emu_exit(void)
{
	unregister_die_notifier(&die_block);
	pr_info("movdir64b_emu: %lu emulated\n", emulated);
}

module_init(emu_init);
module_exit(emu_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("MOVDIR64B in software, for an emulated processor");
