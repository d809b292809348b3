/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw deflate in one block of the fixed Huffman code (RFC 1951), of at most 4096 bytes.
 *
 * Needs u8, u16, u32, memset() and E2BIG of whoever includes it, and keeps its tables in one place: one at a time.
 */
#ifndef FIXED_DEFLATE_H
#define FIXED_DEFLATE_H

#define MIN_MATCH	3
#define MAX_MATCH	258
#define HASH_BITS	12
#define CANDIDATES	8		/* places that are tried for a match */
#define END_OF_BLOCK	256
#define NOWHERE		0xffff
#define MOST_IN		4096

static u16 head[1 << HASH_BITS], prev[MOST_IN];

/* The fixed code (RFC 1951, 3.2.6), each code's first bit lowest. */
static struct { u16 code; u8 bits; } literal[288];
static u8 distance_code[30];
static u16 length_base[29], distance_base[30];
static u8 length_extra[29], distance_extra[30];

struct bit_sink {
	u8 *to;
	unsigned int size, len;
	u32 bits;
	unsigned int held;
};

static u16 mirrored(unsigned int code, unsigned int bits)
{
	u16 result = 0;

	while (bits--) {
		result = result << 1 | (code & 1);
		code >>= 1;
	}
	return result;
}

static void make_tables(void)
{
	unsigned int i, next;

	for (i = 0; i < 288; i++) {
		unsigned int bits = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
		unsigned int code = i < 144 ? 0x30 + i : i < 256 ? 0x190 + i - 144 : i < 280 ? i - 256 : 0xc0 + i - 280;

		literal[i].code = mirrored(code, bits);
		literal[i].bits = bits;
	}
	/* Four lengths' codes share a number of extra bits, from the second four on one more each; 258 has its own. */
	for (i = 0, next = MIN_MATCH; i < 28; i++) {
		length_extra[i] = i < 8 ? 0 : i / 4 - 1;
		length_base[i] = next;
		next += 1 << length_extra[i];
	}
	length_base[28] = MAX_MATCH;
	for (i = 0, next = 1; i < 30; i++) {
		distance_code[i] = mirrored(i, 5);
		distance_extra[i] = i < 4 ? 0 : i / 2 - 1;
		distance_base[i] = next;
		next += 1 << distance_extra[i];
	}
}

static void put(struct bit_sink *sink, unsigned int value, unsigned int bits)
{
	sink->bits |= value << sink->held;
	sink->held += bits;
	while (sink->held >= 8) {
		if (sink->len < sink->size)
			sink->to[sink->len] = sink->bits;
		/* Counted on past the end: that is how it is known to have been too much. */
		sink->len++;
		sink->bits >>= 8;
		sink->held -= 8;
	}
}

static void put_literal(struct bit_sink *sink, unsigned int symbol)
{
	put(sink, literal[symbol].code, literal[symbol].bits);
}

static void put_match(struct bit_sink *sink, unsigned int length, unsigned int distance)
{
	unsigned int i = 28, j = 29;

	while (length < length_base[i])
		i--;
	put_literal(sink, 257 + i);
	put(sink, length - length_base[i], length_extra[i]);
	while (distance < distance_base[j])
		j--;
	put(sink, distance_code[j], 5);
	put(sink, distance - distance_base[j], distance_extra[j]);
}

static unsigned int hash(const u8 *at)
{
	return ((at[0] | at[1] << 8 | at[2] << 16) * 0x9e3779b1u) >> (32 - HASH_BITS);
}

static void remember(const u8 *src, unsigned int at, unsigned int n)
{
	if (at + MIN_MATCH > n)
		return;
	prev[at] = head[hash(src + at)];
	head[hash(src + at)] = at;
}

/* Length of the longest match that is found for what is at AT, and how far back it is; 0 for none. */
static unsigned int find(const u8 *src, unsigned int at, unsigned int n, unsigned int *distance)
{
	unsigned int most = n - at < MAX_MATCH ? n - at : MAX_MATCH, best = 0, tries = CANDIDATES;
	unsigned int other;

	if (most < MIN_MATCH)
		return 0;
	for (other = head[hash(src + at)]; other != NOWHERE && tries--; other = prev[other]) {
		unsigned int len = 0;

		while (len < most && src[other + len] == src[at + len])
			len++;
		if (len > best) {
			best = len;
			*distance = at - other;
		}
	}
	return best >= MIN_MATCH ? best : 0;
}

/* Compress N bytes, at most MOST_IN, into SIZE: the length, or -E2BIG. make_tables() goes before. */
static int encode(const u8 *src, unsigned int n, u8 *dst, unsigned int size)
{
	struct bit_sink sink = { .to = dst, .size = size };
	unsigned int at = 0;

	memset(head, 0xff, sizeof(head));
	put(&sink, 1, 1);
	put(&sink, 1, 2);
	while (at < n) {
		unsigned int distance = 0;
		unsigned int len = find(src, at, n, &distance);

		if (len) {
			put_match(&sink, len, distance);
		} else {
			put_literal(&sink, src[at]);
			len = 1;
		}
		while (len--)
			remember(src, at++, n);
	}
	put_literal(&sink, END_OF_BLOCK);
	if (sink.held)
		put(&sink, 0, 8 - sink.held);
	return sink.len <= size ? (int)sink.len : -E2BIG;
}

#endif
