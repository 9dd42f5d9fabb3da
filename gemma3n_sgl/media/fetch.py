"""Files that a URL names, fetched without letting the URL reach what only this machine may reach.

ssrfguard resolves a name once, judges every address it has, and connects to the address it judged, on every redirect anew.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import replace
from functools import cache
from ipaddress import ip_network
from urllib.parse import urlsplit

import httpx
from ssrfguard import DEFAULT_DENIED, AddressTable, BlockedAddressError, BlockedURLError, Policy, SSRFGuardError, TooManyRedirectsError
from ssrfguard.httpx import AsyncClient

from gemma3n_sgl.errors import FetchError, TooLarge
from gemma3n_sgl.media.limits import DEFAULTS, MEGA, Limits

_METADATA = next(block for block in DEFAULT_DENIED.blocks if block.network == ip_network("169.254.169.254/32"))
_AZURE = replace(_METADATA, network=ip_network("168.63.129.16/32"), name="Azure's wire server")
"""Tells a virtual machine at Azure its secrets, at an address that looks like a public one."""

PUBLIC = Policy(max_redirects=3, denied_networks=AddressTable((*DEFAULT_DENIED.blocks, _AZURE)))
"""http and https at ports 80 and 443 of public addresses; no credentials in the URL; three redirects."""

_HOST = re.compile(r"[\w.:\[\]-]{1,253}")
_HEADERS = {"accept": "image/*, audio/*, video/*;q=0.5", "accept-encoding": "identity", "user-agent": "gemma3n"}


async def fetch(url: str, *, limits: Limits = DEFAULTS, policy: Policy = PUBLIC) -> bytes:
    """The file at a URL, from one of `hosts`, within `max_bytes` and `fetch_timeout` in all. Raises FetchError, and TooLarge for the size."""
    if limits.hosts:
        policy = replace(policy, allowed_hosts=frozenset(limits.hosts))
    download = asyncio.ensure_future(_download(url, limits, policy))
    try:
        async with asyncio.timeout(limits.fetch_timeout):
            return await asyncio.shield(download)  # looking up a name can't be cancelled: at the deadline it is left behind
    except TimeoutError:
        raise FetchError(f"{_host(url)} did not send the file within {limits.fetch_timeout:g} s{limits.by('fetch_timeout')}.") from None
    except SSRFGuardError as error:
        raise FetchError(_refusal(url, error, limits.hosts)) from None
    except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError):
        raise FetchError(_unreachable(url)) from None
    except httpx.HTTPError:
        raise FetchError(f"{_host(url)} broke off before the file was whole.") from None
    finally:
        download.cancel()


async def _download(url: str, limits: Limits, policy: Policy) -> bytes:
    policy.check_url(url)  # as it is written, before httpx reads it in its own way
    async with (
        AsyncClient(policy=policy, verify=_tls(), trust_env=False, timeout=None, headers=_HEADERS) as client,
        client.stream("GET", url, follow_redirects=True) as response,
    ):
        if response.status_code != 200:
            raise FetchError(f"{_host(url)} answered with status {response.status_code} instead of the file.")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError(f"{_host(url)} sends the file compressed although it was asked not to: send the file itself.")
        data = bytearray()
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > limits.max_bytes:
                raise TooLarge(f"The file at {_host(url)} is larger than the limit of {limits.max_bytes / MEGA:g} MB{limits.by('max_media_mb')}.")
        return bytes(data)


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes 20 ms, too long for every picture."""
    return httpx.create_ssl_context()


def _refusal(url: str, error: SSRFGuardError, hosts: tuple[str, ...]) -> str:
    if isinstance(error, TooManyRedirectsError):
        return f"{_host(url)} redirects more than {error.limit} times."
    if isinstance(error, BlockedAddressError):  # the same words as for a name that does not exist: which names do is nobody's business
        return _unreachable(url)
    if isinstance(error, BlockedURLError) and not url[:8].lower().startswith(("http://", "https://")):
        return "Only http:// and https:// URLs are fetched. Send the file itself, as a data URI."
    if hosts:
        return f"{_host(url)} is none of the hosts from which this server fetches files, or leads to another. Send the file itself, as a data URI."
    return (
        f"{_host(url)} is not fetched: only http(s) URLs at ports 80 and 443 of public addresses are. Send the file itself, as a data URI."
    )


def _unreachable(url: str) -> str:
    return f"{_host(url)} could not be reached at a public address. Check the URL, or send the file itself, as a data URI."


def _host(url: str) -> str:
    """The host of a URL if it can be shown; never its path, its query or its credentials."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return host if _HOST.fullmatch(host) else "The URL"
