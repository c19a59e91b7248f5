/*
 * Doubly linked list whose links live in the members. A node that is in no list
 * points at itself, so removing it twice does no harm.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>

#include <base/util.h>

struct bh_list {
	struct bh_list *next, *prev;
};

/* An empty list, or a node that is in none. Whoever embeds it keeps it where it is while it is linked. */
static inline void bh_list_init(struct bh_list *l)
{
	l->next = l->prev = l;
}

/* Of a node: is it in no list? */
static inline bool bh_list_empty(const struct bh_list *l)
{
	return l->next == l;
}

/* The node becomes the last one; it is in no list yet. */
static inline void bh_list_append(struct bh_list *head, struct bh_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* The node is in no list afterwards; it is its owner's to free. */
static inline void bh_list_remove(struct bh_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	bh_list_init(node);
}

/* Visits each member; the body may remove the member it is given. */
#define bh_list_each(it, head, type, member)                                        \
	for (type *it = bh_container_of((head)->next, type, member),                \
	          *it##_next = bh_container_of(it->member.next, type, member);      \
	     &it->member != (head);                                                 \
	     it = it##_next, it##_next = bh_container_of(it->member.next, type, member))

#endif
