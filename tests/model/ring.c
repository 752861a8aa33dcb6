/* ring.c - the steps of the model of ring.h, one access to a shared word each, in the order of the core's functions. */
#include "ring.h"

uint32_t ring_broken;
uint64_t ring_seen;
static const char *const at_name[] = {
    "loads the bits", "takes a bit", "loads a free slot's word", "swaps FREE -> WRITING", "looks at the next control word",
    "writes the body", "swaps WRITING -> READY", "loads tail", "loads the entry at tail", "swaps the entry EMPTY -> FULL", "moves tail",
    "helps tail on", "loads tail again", "loads head", "loads the entry at head", "loads head again", "helps head on",
    "loads the message's word", "swaps READY -> UNACKED", "loads the second entry", "loads the second message's word",
    "swaps the second one READY -> UNACKED", "loads head behind it", "marks its entry", "loads tail before clearing", "helps tail before clearing",
    "clears the entry", "loads the entry again", "moves head", "reads the body", "settles", "sets the bit", "is through"};

void ring_next_operation(struct state *s, struct process *p)
{
    p->message = p->finds_full = p->was_empty = 0;
    p->position = p->looked = p->slot = p->then = p->free_all_along = 0;
    p->entry = p->word = p->second = 0;
    p->at = END;
    if (p->left == 0)
        return;
    p->left--;
    p->at = SEE_HEAD;
    if (p->role != PRODUCER)
        return;
    unsigned me = (unsigned)(p - s->p);
    p->at = BITS;
    p->message = (uint8_t)(2 * me + ++s->published[me]);
    for (unsigned slot = 0; slot < s->slots; slot++)
        if (state_of(s->ctl[slot]) == FREE)
            p->free_all_along |= (uint8_t)bit(slot);
}

/* ---- claim (slot.c) ---- */
static void note_free(struct state *s)
{
    for (unsigned i = 0; i < PROCESSES; i++)
        for (unsigned slot = 0; slot < s->slots; slot++)
            if (state_of(s->ctl[slot]) != FREE)
                s->p[i].free_all_along &= (uint8_t)~bit(slot);
}

static void says_full(struct state *s, struct process *p)
{
    if (p->free_all_along)
        fault("\"full\" though a slot was free all the while", p->free_all_along, 0);
    ring_next_operation(s, p);
}

static void claim_step(struct state *s, struct process *p, unsigned me)
{
    switch (p->at) {
    case BITS:
        p->slot = 0;
        while (p->slot < s->slots && !(s->bits & bit(p->slot)))
            p->slot++;
        p->at = TAKE_BIT;
        if (p->slot < s->slots)
            return;
        if (is_broken(FULL_FROM_HINTS)) {
            says_full(s, p);
            return;
        }
        p->at = LOOK_AT_SLOTS;
        p->looked = 0;
        return;
    case TAKE_BIT:
        p->at = s->bits & bit(p->slot) ? SEE_SLOT : BITS;
        s->bits &= (uint8_t)~bit(p->slot);
        return;
    case SEE_SLOT:
        p->word = s->ctl[p->slot];
        p->at = state_of(p->word) == FREE ? CLAIM : BITS;
        return;
    case LOOK_AT_SLOTS:
        if (p->looked == s->slots) {
            says_full(s, p);
            return;
        }
        p->slot = p->looked++;
        p->word = s->ctl[p->slot];
        p->at = state_of(p->word) == FREE ? CLAIM : LOOK_AT_SLOTS;
        return;
    default: { /* CLAIM */
        uint16_t mine = word_of(generation_of(p->word), 0, me + 1, WRITING);
        if (swap16(&s->ctl[p->slot], p->word, mine)) {
            p->word = mine;
            p->looked = p->free_all_along = 0;
            p->at = is_broken(COMMIT_BEFORE_BODY) ? COMMIT : WRITE;
        } else {
            p->at = p->looked ? LOOK_AT_SLOTS : BITS;
        }
    }
    }
}

/* ---- publish (publish.c) ---- */
static void write_step(struct state *s, struct process *p)
{
    s->body[p->slot] = p->message;
    p->at = is_broken(COMMIT_BEFORE_BODY) ? SEE_TAIL : COMMIT;
}

static void commit_step(struct state *s, struct process *p)
{
    uint16_t ready = word_of(generation_of(p->word), 0, 0, READY);
    if (!swap16(&s->ctl[p->slot], p->word, ready))
        fault("a slot being written was taken over", p->slot, p->message);
    s->committed |= (uint8_t)bit(p->message - 1);
    s->holds[p->slot] = p->message;
    p->word = ready;
    p->at = is_broken(COMMIT_BEFORE_BODY) ? WRITE : SEE_TAIL;
}

/* ---- enqueue (ring.c): the reference is p->slot and p->word ---- */
static void enqueue_step(struct state *s, struct process *p)
{
    uint16_t *entry = &s->entry[p->position % SIZE];
    unsigned l = lap(p->position);
    switch (p->at) {
    case SEE_TAIL:
        p->position = s->tail;
        p->at = SEE_ENTRY;
        return;
    case SEE_ENTRY:
        p->entry = *entry;
        if (p->entry == empty_of(l))
            p->at = PUT;
        else if (lap_of(p->entry) == l || lap_of(p->entry) == lap(p->position + SIZE))
            p->at = HELP_TAIL; /* FULL of this lap, or anything of the next: a half-done enqueue */
        else
            p->at = TAIL_AGAIN;
        return;
    case PUT:
        p->at = SEE_TAIL;
        if (!swap16(entry, p->entry, full_of(l, generation_of(p->word), p->slot)))
            return;
        p->at = MOVE_TAIL;
        return;
    case MOVE_TAIL:
        swap8(&s->tail, p->position, (uint8_t)(p->position + 1));
        ring_next_operation(s, p);
        return;
    case HELP_TAIL:
        swap8(&s->tail, p->position, (uint8_t)(p->position + 1));
        p->at = SEE_TAIL;
        return;
    default: /* TAIL_AGAIN */
        if (s->tail != p->position) {
            p->at = SEE_TAIL;
            return;
        }
        p->finds_full = 1; /* clear what is stale at the head */
        p->at = SEE_HEAD;
    }
}

/* ---- look (ring.c) ---- */
static void finds_nothing(struct state *s, struct process *p)
{
    p->at = SEE_TAIL; /* there is room now */
    if (p->finds_full) {
        p->finds_full = 0;
        return;
    }
    if (!p->was_empty)
        fault("nothing found, but there was a message all the while", s->head, s->tail);
    p->found_nothing = true;
    ring_next_operation(s, p);
}

static void clear_and_then(struct process *p, enum at then)
{
    p->at = is_broken(CLEAR_BEFORE_TAIL) || is_broken(TAIL_NOT_HELPED) ? CLEAR : SEE_TAIL_FOR_CLEAR;
    p->then = (uint8_t)then;
}

static void look_step(struct state *s, struct process *p)
{
    unsigned l = lap(p->position);
    switch (p->at) {
    case SEE_HEAD:
        p->position = s->head;
        p->at = SEE_FRONT;
        return;
    case SEE_FRONT:
        p->entry = s->entry[p->position % SIZE];
        if (p->entry == empty_of(l))
            p->at = HEAD_AGAIN;
        else if (lap_of(p->entry) == lap(p->position + SIZE) && !(is_broken(HALF_DONE_TAKE_UNSEEN) && is_full(p->entry)))
            p->at = HELP_HEAD;
        else if (lap_of(p->entry) == l && is_full(p->entry))
            p->at = SEE_MESSAGE;
        else
            p->at = HEAD_AGAIN;
        return;
    case HEAD_AGAIN:
        if (s->head != p->position)
            p->at = SEE_HEAD;
        else if (p->entry == empty_of(l))
            finds_nothing(s, p);
        else if (is_broken(HALF_DONE_TAKE_UNSEEN))
            p->at = SEE_HEAD;
        else
            fault("an entry of no lap that head can meet", p->position, p->entry);
        return;
    case HELP_HEAD:
        swap8(&s->head, p->position, (uint8_t)(p->position + 1));
        p->at = SEE_HEAD;
        return;
    default: { /* SEE_MESSAGE */
        unsigned slot = p->entry >> 1 & 7;
        uint16_t word = slot == MARK ? 0 : s->ctl[slot];
        if (slot == MARK || !is_live(p->entry, word)) {
            clear_and_then(p, SEE_HEAD);
        } else if (p->finds_full) {
            s->to_healer |= (uint8_t)bit(p->message - 1u);
            ring_next_operation(s, p);
        } else {
            p->slot = (uint8_t)slot;
            p->word = word;
            p->at = p->role == MIDDLE_TAKER ? SEE_SECOND : TAKE;
        }
    }
    }
}

/* ---- take (deliver.c) ---- */
static bool deliver(struct state *s, struct process *p, unsigned me)
{
    uint16_t mine = word_of(generation_of(p->word), deliveries_of(p->word) + 1, me + 1, UNACKED);
    if (is_broken(DELIVERY_WITHOUT_SWAP))
        s->ctl[p->slot] = mine;
    else if (!swap16(&s->ctl[p->slot], p->word, mine))
        return false;
    unsigned m = s->holds[p->slot] - 1u;
    if (s->ordered && !(s->delivered & bit(m)) && m % 2 && !((s->delivered | s->to_healer) & bit(m - 1)))
        fault("first deliveries of a producer out of order", m, producer_of(m));
    s->delivered |= (uint8_t)bit(m);
    p->word = mine;
    p->message = (uint8_t)(m + 1);
    p->was_empty = false;
    return true;
}

static void take_step(struct state *s, struct process *p, unsigned me)
{
    uint8_t next = (uint8_t)(p->position + 1);
    unsigned slot = p->second >> 1 & 7;
    switch (p->at) {
    case TAKE:
        p->at = SEE_HEAD;
        if (deliver(s, p, me))
            clear_and_then(p, is_broken(FREE_BEFORE_READ) ? SETTLE : READ);
        return;
    case SEE_SECOND: /* the message behind the head, if there is one: as if its sequence were lower */
        p->second = s->entry[next % SIZE];
        slot = p->second >> 1 & 7;
        p->at = is_full(p->second) && lap_of(p->second) == lap(next) && slot != MARK ? SEE_SECOND_MESSAGE : TAKE;
        return;
    case SEE_SECOND_MESSAGE:
        p->at = TAKE;
        if (!is_live(p->second, s->ctl[slot]))
            return;
        p->slot = (uint8_t)slot;
        p->word = s->ctl[slot];
        p->position = next;
        p->entry = p->second;
        p->at = TAKE_SECOND;
        return;
    case TAKE_SECOND:
        p->at = deliver(s, p, me) ? SEE_HEAD_SECOND : SEE_HEAD;
        return;
    case SEE_HEAD_SECOND:
        p->at = MARK_SECOND;
        if (s->head == p->position)
            clear_and_then(p, is_broken(FREE_BEFORE_READ) ? SETTLE : READ);
        return;
    default: /* MARK_SECOND */
        swap16(&s->entry[p->position % SIZE], p->entry, full_of(lap(p->position), 0, MARK));
        p->at = is_broken(FREE_BEFORE_READ) ? SETTLE : READ;
    }
}

/* ---- clear (ring.c) ---- */
static void clear_step(struct state *s, struct process *p)
{
    uint16_t *entry = &s->entry[p->position % SIZE];
    unsigned next = lap(p->position + SIZE);
    switch (p->at) {
    case SEE_TAIL_FOR_CLEAR:
        p->at = s->tail == p->position ? TAIL_FOR_CLEAR : is_broken(CLEAR_BEFORE_TAIL) ? MOVE_HEAD : CLEAR;
        return;
    case TAIL_FOR_CLEAR:
        swap8(&s->tail, p->position, (uint8_t)(p->position + 1));
        p->at = is_broken(CLEAR_BEFORE_TAIL) ? MOVE_HEAD : CLEAR;
        return;
    case CLEAR:
        p->at = SEE_CLEARED;
        if (swap16(entry, p->entry, empty_of(next)))
            p->at = is_broken(CLEAR_BEFORE_TAIL) ? SEE_TAIL_FOR_CLEAR : MOVE_HEAD;
        else if (is_broken(HEAD_MOVED_BLINDLY))
            p->at = MOVE_HEAD;
        return;
    case SEE_CLEARED:
        p->entry = *entry;
        p->at = lap_of(p->entry) == next ? MOVE_HEAD : p->then;
        if (is_full(p->entry) && lap_of(p->entry) == lap(p->position))
            p->at = CLEAR; /* marked in between */
        return;
    default: /* MOVE_HEAD */
        swap8(&s->head, p->position, (uint8_t)(p->position + 1));
        p->at = p->then;
    }
}

/* ---- settle (deliver.c, slot.c) ---- */
static void settle_step(struct state *s, struct process *p)
{
    uint16_t *word = &s->ctl[p->slot];
    switch (p->at) {
    case READ:
        if (s->body[p->slot] != p->message)
            fault("a body that is not the message's", p->message, s->body[p->slot]);
        p->at = is_broken(FREE_BEFORE_READ) ? SET_BIT : SETTLE;
        return;
    case SETTLE: {
        bool nacks = p->role == NACKER && !p->nacked;
        uint16_t to = nacks ? word_of(generation_of(p->word), deliveries_of(p->word), 0, READY)
                            : word_of(generation_of(p->word) + !is_broken(GENERATION_KEPT), 0, 0, FREE);
        if (!swap16(word, p->word, to))
            fault("a message of ours was taken away", p->slot, p->message);
        if (!nacks && s->settled & bit(p->message - 1u))
            fault("settled twice", p->message, 0);
        p->nacked |= nacks;
        p->word = to;
        p->at = nacks ? SEE_TAIL : is_broken(FREE_BEFORE_READ) ? READ : SET_BIT;
        if (!nacks)
            s->settled |= (uint8_t)bit(p->message - 1u);
        return;
    }
    default: /* SET_BIT */
        s->bits |= (uint8_t)bit(p->slot);
        ring_next_operation(s, p);
    }
}

/* ---- a step ---- */
static void note_empty(struct state *s)
{
    for (unsigned at = s->head; at <= s->tail; at++) {
        uint16_t e = s->entry[at % SIZE];
        if (is_full(e) && lap_of(e) == lap(at) && (e >> 1 & 7) != MARK && is_live(e, s->ctl[e >> 1 & 7]))
            return;
    }
    for (unsigned i = 0; i <= PROCESSES; i++)
        s->p[i].was_empty = s->p[i].at >= SEE_HEAD && s->p[i].at <= MARK_SECOND;
}

void ring_step(struct state *s, unsigned me)
{
    struct process *p = &s->p[me];
    ring_seen |= UINT64_C(1) << p->at;
    switch (p->at) {
    case BITS: case TAKE_BIT: case SEE_SLOT: case CLAIM: case LOOK_AT_SLOTS: claim_step(s, p, me); break;
    case WRITE: write_step(s, p); break;
    case COMMIT: commit_step(s, p); break;
    case SEE_TAIL: case SEE_ENTRY: case PUT: case MOVE_TAIL: case HELP_TAIL: case TAIL_AGAIN: enqueue_step(s, p); break;
    case SEE_HEAD: case SEE_FRONT: case HEAD_AGAIN: case HELP_HEAD: case SEE_MESSAGE: look_step(s, p); break;
    case READ: case SETTLE: case SET_BIT: settle_step(s, p); break;
    case SEE_TAIL_FOR_CLEAR: case TAIL_FOR_CLEAR: case CLEAR: case SEE_CLEARED: case MOVE_HEAD: clear_step(s, p); break;
    default: take_step(s, p, me);
    }
    note_free(s);
    note_empty(s);
    if (s->tail < s->head)
        fault("tail behind head", s->head, s->tail);
}

const char *ring_doing(const void *state, unsigned process)
{
    return at_name[((const struct state *)state)->p[process].at];
}
