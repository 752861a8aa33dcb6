"""shmq_clients.keywords: what is not known is refused, with what is."""

import pytest

from shmq.errors import InvalidArgument
from shmq_clients.keywords import check_known
from shmq_clients.outgoing import outgoing

KNOWN = ("exchange", "priority")


def test_what_is_known_passes() -> None:
    check_known({"priority": 1, "exchange": ""}, KNOWN)


def test_a_misspelt_keyword_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidArgument, match=r"^exchnge = 'e' can't be used; allowed: the keyword exchange$"):
        check_known({"exchnge": "e"}, KNOWN)


def test_a_keyword_that_is_like_none_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(InvalidArgument, match=r"^body = 5 can't be used; allowed: the keyword exchange or priority$"):
        check_known({"body": 5}, KNOWN)


def test_a_publish_knows_more_keywords_than_the_properties() -> None:
    with pytest.raises(InvalidArgument, match=r"allowed: the keyword routing_key$"):
        outgoing(routingkey="q")  # type: ignore[call-arg] # what is refused
