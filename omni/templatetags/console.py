"""How the console's templates write times, sizes, states and signs. No queries, no decisions."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from django import template
from django.conf import settings
from django.contrib.admin.templatetags import admin_list
from django.templatetags.static import static
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from accounts.authentication import of_user
from omni.kernel import clock
from omni.pages import navigation, words
from omni.rest.middleware import leader_name

register = template.Library()


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """One sign of the sheet `icons.svg`; without a label it is decoration."""
    hidden = format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"')
    return format_html('<svg class="icon" {}><use href="{}#{}"></use></svg>', hidden, static("console/icons.svg"), name)


@register.filter
def when(moment: Any) -> SafeString | str:
    """`3 min ago`, kept up to date by the page; the exact time is its title."""
    found = words.moment(moment)
    if found is None:
        return words.NOTHING
    exact = clock.rfc3339(found)
    shown = found.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return format_html('<time datetime="{}" title="{}">{}</time>', exact, shown, words.ago(found, clock.now()))


@register.filter
def time_of_day(moment: Any) -> str:
    found = words.moment(moment)
    return words.NOTHING if found is None else found.astimezone(dt.UTC).strftime("%H:%M:%S")


@register.filter
def size(value: Any) -> str:
    return words.size(value)


@register.filter
def figure(value: Any, unit: str = "") -> str:
    return words.figure(value, unit)


@register.filter
def span(seconds: Any) -> str:
    return words.span(seconds)


@register.filter
def tone(status: Any) -> str:
    return words.tone(str(status))


@register.filter
def service_tone(state: Any) -> str:
    """Of an internal service's state, and of what one check came to."""
    return words.SERVICE_TONES.get(str(state), "off")


@register.filter
def of_key(found: Any, key: Any) -> Any:
    return found.get(key)


@register.simple_tag
def state(word: Any, shown: str = "") -> SafeString:
    """A mark and a word: never colour alone."""
    text = shown or str(word).replace("_", " ")
    return format_html('<span class="state" data-tone="{}">{}</span>', words.tone(str(word)), text)


@register.filter
def share(part: Any, whole: Any) -> int:
    """Whole percent, 0 to 100; 0 where nobody measured."""
    if not part or not whole:
        return 0
    return max(0, min(100, round(100 * float(part) / float(whole))))


@register.filter
def words_of(name: Any) -> str:
    """`blue_green` → `blue green`."""
    return str(name).replace("_", " ")


@register.filter
def step_words(what: Any) -> str:
    """The name of a plan's action as something that was done."""
    return words.STEPS.get(str(what), str(what).replace("_", " "))


@register.filter
def step_tone(what: Any) -> str:
    return {"faildeployment": "bad", "revert": "warn", "giveup": "bad", "finish": "ok"}.get(str(what), "off")


@register.filter
def split_words(text: str) -> list[str]:
    return text.split()


_SIGN = re.compile(r">\s*(check|close)_small\s*<")  # names in unfold's icon font, which no page loads
_STYLED = re.compile(r' style="[^"]*"')


@register.filter
def unstyled(html: Any) -> SafeString:
    """What an admin field shows, without inline styles, which no page may have."""
    text = _STYLED.sub("", conditional_escape(html))
    text = _SIGN.sub(lambda found: ">yes<" if found[1] == "check" else ">no<", text)
    return mark_safe(text)  # noqa: S308 - escaped, or safe before


@register.filter
def short(digest: Any) -> str:
    return str(digest or "")[:12]


@register.filter
def who(actor: Any) -> str:
    """`user:admin` → `admin`; what the platform did by itself keeps its kind."""
    kind, _, name = str(actor or "").partition(":")
    return name if kind == "user" else f"{name} ({kind})" if name else kind


@register.simple_tag(takes_context=True)
def around(context: dict[str, Any]) -> dict[str, Any]:
    """What the frame shows on every page, also on those that Django's admin makes: ways, actor, who leads."""
    request = context["request"]
    actor = context.get("actor") or of_user(request.user)
    here, leader = str(settings.CONFIG.me.netloc), leader_name()
    return {"actor": actor, "ways": navigation.ways(actor, request.path), "here": here, "leader": leader}


@register.simple_tag
def record_table(cl: Any) -> dict[str, Any]:
    """A list of Django's admin as heads and rows of cells."""
    return {"heads": list(admin_list.result_headers(cl)), "rows": list(admin_list.results(cl))}


@register.simple_tag
def filter_choices(cl: Any, spec: Any) -> list[Any]:
    return list(spec.choices(cl))


@register.simple_tag
def page_link(cl: Any, number: int, further: int) -> str:
    return str(cl.get_query_string({"p": number + further}))
