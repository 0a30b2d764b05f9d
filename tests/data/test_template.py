from __future__ import annotations

import pytest

from panmodal.data.sample import assistant, user
from panmodal.data.template import ChatTemplate
from panmodal.errors import CheckpointError, InputError


def render(source: str) -> str:
    return ChatTemplate(source).render([user("hi"), assistant("ho")])


def test_plain_strings_and_parts():
    assert render("{% for m in messages %}{{ m.content }}{% endfor %}") == "hiho"
    parts = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    assert render(parts) == "hiho"


def test_a_template_may_refuse():
    with pytest.raises(InputError, match="refuses this conversation: only one"):
        render("{{ raise_exception('only one') }}")


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ 'a' * 10**10 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{% for i in range(90000) %}{{ 'a' * 9 ~ messages ~ messages ~ messages ~ messages }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_is_stopped(hostile):
    with pytest.raises((CheckpointError, InputError)):
        render(hostile)


def test_a_broken_or_huge_template():
    with pytest.raises(CheckpointError, match="does not parse"):
        ChatTemplate("{% for %}")
    with pytest.raises(CheckpointError, match="characters; the limit"):
        ChatTemplate("a" * 300_000)
