/*
 * IP-in-IP without the kernel's ipip module: two tc programs, one object for every node.
 * Compiled by bin/ensure bpf; put in place by pycni.lab.bpf; needs Linux 6.7.
 *
 * encap, on the egress of a veth that is called tunl0: wraps each packet in an outer header, whose
 * destination is the gateway of the route that led here (`via X dev tunl0 onlink`), exactly as the
 * kernel's tunl0 takes it. decap, on the ingress of the underlay interface: unwraps protocol 4 that
 * is addressed to this node and lets it enter again through tunl0.
 *
 * Both ask the kernel's routing table, which answers only where net.ipv4.ip_forward is 1. Unlike in
 * a real tunnel, a packet that has to wait for the underlay's ARP does not arrive.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define TTL 64
/* pycni.lab.bpf gives tunl0 this index and this address in every namespace: the program can't look
 * a name up. */
#define TUNNEL_INDEX 4242
#define TUNNEL_MAC { 0x02, 0x00, 0x00, 0x00, 0x00, 0x04 }

/* Newer than Debian 12's headers. */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)          /* Linux 6.4 */
#define FIB_LOOKUP_SRC (1U << 4)                 /* Linux 6.7: also choose the source address */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)       /* Linux 6.4 */

/* The Ethernet and IPv4 headers, or NULL for anything else; bounds as the verifier wants them. */
static __always_inline struct iphdr *ipv4_header(struct __sk_buff *skb)
{
    void *end = (void *)(long)skb->data_end;
    struct ethhdr *eth = (void *)(long)skb->data;
    struct iphdr *ip = (void *)(eth + 1);

    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
        return 0;
    return ip;
}

static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
    const __u16 *word = (const void *)ip;
    __u32 sum = 0;

#pragma unroll
    for (int i = 0; i < (int)(sizeof *ip / 2); i++)
        sum += word[i];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

SEC("tc/encap")
int encap(struct __sk_buff *skb)
{
    struct iphdr *inner = ipv4_header(skb);

    if (!inner)
        return TC_ACT_SHOT;

    /* Which gateway did the route name? The answer comes in ipv4_dst. */
    struct bpf_fib_lookup overlay = {
        .family = AF_INET,
        .ifindex = skb->ifindex,
        .ipv4_src = inner->saddr,
        .ipv4_dst = inner->daddr,
    };
    if (bpf_fib_lookup(skb, &overlay, sizeof overlay,
                       FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_OUTPUT))
        return TC_ACT_SHOT;

    /* How does the underlay reach it: device, next hop, our address there? */
    struct bpf_fib_lookup underlay = {
        .family = AF_INET,
        .ifindex = skb->ifindex,
        .ipv4_dst = overlay.ipv4_dst,
    };
    if (bpf_fib_lookup(skb, &underlay, sizeof underlay, FIB_LOOKUP_SKIP_NEIGH | FIB_LOOKUP_SRC))
        return TC_ACT_SHOT;

    if (bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
                            BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
        return TC_ACT_SHOT;
    struct iphdr outer = {
        .version = 4,
        .ihl = sizeof outer / 4,
        .ttl = TTL,
        .protocol = IPPROTO_IPIP,
        .tot_len = bpf_htons(skb->len - sizeof(struct ethhdr)),
        .saddr = underlay.ipv4_src,
        .daddr = overlay.ipv4_dst,
    };
    outer.check = header_checksum(&outer);
    if (bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &outer, sizeof outer, 0))
        return TC_ACT_SHOT;

    struct bpf_redir_neigh next_hop = { .nh_family = AF_INET, .ipv4_nh = underlay.ipv4_dst };
    return bpf_redirect_neigh(underlay.ifindex, &next_hop, sizeof next_hop, 0);
}

SEC("tc/decap")
int decap(struct __sk_buff *skb)
{
    /* On the stack: constants in a section of their own would need a map. */
    const unsigned char tunnel_mac[ETH_ALEN] = TUNNEL_MAC;
    struct iphdr *outer = ipv4_header(skb);

    if (!outer || outer->protocol != IPPROTO_IPIP || skb->pkt_type != PACKET_HOST)
        return TC_ACT_OK;

    /* "Not forwarded" is the answer for an address of our own: others' tunnels pass by. */
    struct bpf_fib_lookup lookup = {
        .family = AF_INET,
        .ifindex = skb->ifindex,
        .ipv4_src = outer->saddr,
        .ipv4_dst = outer->daddr,
    };
    if (bpf_fib_lookup(skb, &lookup, sizeof lookup, FIB_LOOKUP_SKIP_NEIGH) !=
        BPF_FIB_LKUP_RET_NOT_FWDED)
        return TC_ACT_OK;

    if (bpf_skb_adjust_room(skb, -(int)sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
                            ADJ_ROOM_DECAP_L3_IPV4))
        return TC_ACT_SHOT;
    /* Addressed to tunl0, or its own input would drop it as another host's. */
    bpf_skb_store_bytes(skb, 0, tunnel_mac, sizeof tunnel_mac, 0);
    return bpf_redirect(TUNNEL_INDEX, BPF_F_INGRESS);
}

/* Some of the helpers are for GPL programs only. */
char _license[] SEC("license") = "GPL";
