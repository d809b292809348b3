// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TEST ONLY: plays Intel's In-Memory Analytics Accelerator for zswap, in software.
 *
 * Registers the acomp algorithm "deflate" under the driver name "deflate-iaa", as iaa_crypto does, with what its users
 * can see of the hardware: raw deflate, one block of the fixed Huffman code, matches within 4 KiB, no stored block, and
 * -E2BIG where the result does not fit in its destination. The bytes are not the hardware's: nobody knows its matcher.
 *
 * Nothing here is fast, and everything is under one lock. Faults can be asked for; see the module's parameters.
 *
 * Builds against Linux 6.12 to 7.3. Where the tree's acomp can take several pages in one request (v14 of the zswap
 * batching series: unit_size, batch_size and batch_completed), the Makefile says so with FAKE_IAA_BATCH.
 */
#include <crypto/internal/acompress.h>
#include <crypto/scatterwalk.h>
#include <linux/highmem.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/zlib.h>

#include "fixed_deflate.h"

#define WINDOW_BITS	12		/* the hardware's window: 4 KiB */
#define BATCH_SIZE	8		/* IAA_CRYPTO_MAX_BATCH_SIZE of the series */

static unsigned long fail_nth;
module_param(fail_nth, ulong, 0644);
MODULE_PARM_DESC(fail_nth, "page, counted from 1 since the module was loaded, whose compression fails; 0: none");

static int fail_byte = -1;
module_param(fail_byte, int, 0644);
MODULE_PARM_DESC(fail_byte, "compression of every page fails that begins with this byte, 0 to 255; -1: none");

static int fail_errno = E2BIG;
module_param(fail_errno, int, 0644);
MODULE_PARM_DESC(fail_errno, "errno, above 0, of a failing page; 0: it claims to succeed, and wrote nothing");

static bool keep_length;
module_param(keep_length, bool, 0644);
MODULE_PARM_DESC(keep_length, "a failing page leaves the length of its destination as it was");

static bool dynamic;
module_param(dynamic, bool, 0644);
MODULE_PARM_DESC(dynamic, "compress with zlib's level 6 and dynamic Huffman codes, as no fixed-mode hardware would");

static unsigned long pages;
module_param(pages, ulong, 0444);
MODULE_PARM_DESC(pages, "pages that compression was asked for");

static unsigned long faults;
module_param(faults, ulong, 0444);
MODULE_PARM_DESC(faults, "pages that failed because the other parameters say so");

/* All that follows is one job's at a time. */
static DEFINE_MUTEX(lock);
static u8 *in, *out;			/* one page each, and two for what is to be inflated */
static void *workspace;			/* of zlib */

static int encode_dynamic(const u8 *src, unsigned int n, u8 *dst, unsigned int size)
{
	z_stream stream = { .workspace = workspace };

	if (zlib_deflateInit2(&stream, 6, Z_DEFLATED, -WINDOW_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return -EINVAL;
	stream.next_in = src;
	stream.avail_in = n;
	stream.next_out = dst;
	stream.avail_out = size;
	return zlib_deflate(&stream, Z_FINISH) == Z_STREAM_END ? (int)stream.total_out : -E2BIG;
}

/*
 * One page: the result's length, or an errno; *FAULT tells one that was asked for from one of its own.
 *
 * A function of its own that stays one: a recorder sees the page at its first argument.
 */
int fake_iaa_compress_page(const u8 *src, unsigned int n, u8 *dst, unsigned int size, bool *fault);
noinline int fake_iaa_compress_page(const u8 *src, unsigned int n, u8 *dst, unsigned int size, bool *fault)
{
	pages++;
	*fault = (fail_nth && pages == fail_nth) || (fail_byte >= 0 && src[0] == fail_byte);
	if (*fault) {
		faults++;
		return -abs(fail_errno);
	}
	return dynamic ? encode_dynamic(src, n, dst, size) : encode(src, n, dst, size);
}

/*
 * One page out of a scatterlist into the first buffer of another, whose length becomes the length of the result, or the
 * errno, where SET_LENGTH says so.
 */
static int compress_unit(struct scatterlist *src, unsigned int from, unsigned int n, struct scatterlist *dst,
			 unsigned int size, bool set_length, unsigned int *dlen)
{
	unsigned int at = src->offset + from;
	bool fault;
	int len;

	size = min_t(unsigned int, size, PAGE_SIZE);
	if (from + n <= src->length && offset_in_page(at) + n <= PAGE_SIZE) {
		/* In place: from a page's address a recorder knows which page it is. */
		void *mapped = kmap_local_page(sg_page(src) + at / PAGE_SIZE);

		len = fake_iaa_compress_page(mapped + offset_in_page(at), n, out, size, &fault);
		kunmap_local(mapped);
	} else {
		scatterwalk_map_and_copy(in, src, from, n, 0);
		len = fake_iaa_compress_page(in, n, out, size, &fault);
	}
	if (len > 0)
		scatterwalk_map_and_copy(out, dst, 0, len, 1);
	if (fault && keep_length)
		return len;
	if (set_length)
		dst->length = len;
	if (len >= 0)
		*dlen = len;
	return min(len, 0);
}

#ifdef FAKE_IAA_BATCH
static int compress_batch(struct acomp_req *req)
{
	unsigned int n = req->slen / req->unit_size, k;
	struct scatterlist *dst = req->dst;
	int err, any = 0;

	if (n > BATCH_SIZE || req->slen % req->unit_size || sg_nents(dst) < n)
		return -EINVAL;
	for (k = 0; k < n; k++, dst = sg_next(dst)) {
		unsigned int dlen;

		/* What the last request left there was a length or an errno, and is no size of a buffer. */
		dst->length = req->unit_size;
		err = compress_unit(req->src, k * req->unit_size, req->unit_size, dst, req->unit_size, true, &dlen);
		if (err)
			any = -EINVAL;
	}
	req->dlen = req->dst->length;
	return any;
}

/* Asked when compress() has returned, and by then all is done. */
static bool fake_iaa_batch_completed(struct acomp_req *req, bool comp)
{
	return true;
}
#endif

static int fake_iaa_compress(struct acomp_req *req)
{
	bool set_length = false;
	int err;

	if (!req->src || !req->dst || !req->slen || !req->dlen)
		return -EINVAL;
	mutex_lock(&lock);
#ifdef FAKE_IAA_BATCH
	if (req->unit_size && req->slen > req->unit_size) {
		err = req->unit_size > PAGE_SIZE ? -EINVAL : compress_batch(req);
		goto done;
	}
	set_length = req->unit_size;
	if (set_length)
		req->dst->length = req->dlen;
#endif
	if (req->slen > PAGE_SIZE)
		err = -EINVAL;
	else
		err = compress_unit(req->src, 0, req->slen, req->dst, req->dlen, set_length, &req->dlen);
#ifdef FAKE_IAA_BATCH
done:
#endif
	mutex_unlock(&lock);
	return err;
}

static int fake_iaa_decompress(struct acomp_req *req)
{
	z_stream stream = { };
	int err = -EINVAL;

	if (!req->src || !req->dst || !req->slen || !req->dlen || req->slen > 2 * PAGE_SIZE)
		return -EINVAL;
	mutex_lock(&lock);
	stream.workspace = workspace;
	if (zlib_inflateInit2(&stream, -WINDOW_BITS) != Z_OK)
		goto done;
	scatterwalk_map_and_copy(in, req->src, 0, req->slen, 0);
	stream.next_in = in;
	stream.avail_in = req->slen;
	stream.next_out = out;
	stream.avail_out = min_t(unsigned int, req->dlen, PAGE_SIZE);
	err = zlib_inflate(&stream, Z_FINISH);
	if (err != Z_STREAM_END) {
		err = stream.avail_out ? -EINVAL : -EOVERFLOW;
		goto done;
	}
	scatterwalk_map_and_copy(out, req->dst, 0, stream.total_out, 1);
	req->dlen = stream.total_out;
	err = 0;
done:
	mutex_unlock(&lock);
	return err;
}

static struct acomp_alg fake_iaa = {
	.compress		= fake_iaa_compress,
	.decompress		= fake_iaa_decompress,
#ifdef FAKE_IAA_BATCH
	.batch_completed	= fake_iaa_batch_completed,
	.batch_size		= BATCH_SIZE,
#endif
	.base			= {
		.cra_name		= "deflate",
		.cra_driver_name	= "deflate-iaa",
		.cra_priority		= 300,
#ifdef FAKE_IAA_BATCH
		.cra_flags		= CRYPTO_ALG_ASYNC | CRYPTO_ALG_REQ_SEG,
		/* acomp keeps the address of its wait queue there. */
		.cra_reqsize		= sizeof(unsigned long),
#else
		.cra_flags		= CRYPTO_ALG_ASYNC,
#endif
		.cra_module		= THIS_MODULE,
	},
};

static void free_all(void)
{
	vfree(workspace);
	vfree(out);
	vfree(in);
}

static int __init fake_iaa_init(void)
{
	int err = -ENOMEM;

	make_tables();
	in = vmalloc(2 * PAGE_SIZE);
	out = vmalloc(PAGE_SIZE);
	workspace = vmalloc(max(zlib_inflate_workspacesize(), zlib_deflate_workspacesize(-WINDOW_BITS, 8)));
	if (!in || !out || !workspace)
		goto fail;
	err = crypto_register_acomp(&fake_iaa);
	if (err)
		goto fail;
	pr_info("fake_iaa: deflate-iaa is played in software, %s\n",
		IS_ENABLED(FAKE_IAA_BATCH) ? "8 pages in a batch" : "page by page");
	return 0;
fail:
	free_all();
	return err;
}

static void __exit fake_iaa_exit(void)
{
	crypto_unregister_acomp(&fake_iaa);
	free_all();
}

module_init(fake_iaa_init);
module_exit(fake_iaa_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("TEST ONLY: plays Intel IAA's deflate-iaa for zswap, in software");
