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

static inline void bh_list_init(struct bh_list *l)
{
	l->next = l->prev = l;
}

static inline bool bh_list_empty(const struct bh_list *l)
{
	return l->next == l;
}

static inline void bh_list_append(struct bh_list *head, struct bh_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

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
